"""Writes the page that draws any loss of the catalog, with sliders for its settings: one file, no server."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lopsided.compute.javascript import controls, print_all
from lopsided.data.storage import UserError, write_text
from lopsided.losses import Balanced, Formula
from lopsided.losses.names import read

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Losses of lopsided</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 3rem; background: Canvas; color: CanvasText;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }}
</style>
</head>
<body>
<h1>Losses of lopsided</h1>
{body}
</body>
</html>
"""


def write_loss_page(path: Path, first: Formula | Balanced | None = None) -> None:
    """Writes the page as a file that needs no other. first: the loss that it shows when it is opened, asl if none.

    Raises UserError for a loss that is not on the page.
    """
    write_text(path, _PAGE.format(body=body(first)))


def body(first: Formula | Balanced | None = None) -> str:
    """Returns what a page needs to draw losses: its style, its elements and its script."""
    name, settings = ("asl", {}) if first is None else read(str(first))
    for each in controls(name):
        value = settings.get(each.name)
        if isinstance(value, tuple) and len(value) > each.length:
            raise UserError(f"the page has {each.length} {each.name} at most, got {len(value)}")
        if isinstance(value, int | float) and not each.low <= value <= each.high:
            raise UserError(f"the page draws {each.name} from {each.low:g} to {each.high:g}, got {value:g}")
    start = "&".join([f"#loss={name}", *(f"{setting}={value}" for setting, value in settings.items())])
    script, style = ((files("lopsided.report") / f"loss_page.{kind}").read_text("utf-8") for kind in ("js", "css"))
    environment = Environment(
        loader=PackageLoader("lopsided", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("loss_page.html.j2")
    return template.render(start=start, style=Markup(style), script=Markup(f"{print_all()}\n{script}"))
