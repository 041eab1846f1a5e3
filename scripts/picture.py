"""Take docs/report.png: a report down to its first figure, light, as headless Chromium shows it.

python scripts/picture.py RUN/report.html docs/report.png
"""

import base64
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.browser import chromium, show

WIDTH, SCALE = 1100, 1.5


def main(page: Path, picture: Path) -> None:
    with chromium() as browser:
        show(browser, page.resolve(), width=WIDTH)
        height = browser.execute_script("return document.querySelector('figcaption').getBoundingClientRect().top")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": SCALE}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    picture.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
