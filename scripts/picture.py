"""Take docs/report.png: the top of a report, light, as headless Chromium shows it.

python scripts/picture.py RUN/report.html docs/report.png
"""

import base64
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.browser import chromium, show

WIDTH, HEIGHT, SCALE = 1100, 945, 1.5


def main(page: Path, picture: Path) -> None:
    with chromium() as browser:
        show(browser, page.resolve(), width=WIDTH)
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": SCALE}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    picture.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
