"""Says things on the terminal, of which no name or text that comes from a file is obeyed."""

from __future__ import annotations

from collections.abc import Iterable

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from lopsided.data.excerpts import visible


class Console(rich.console.Console):
    """Prints what rich does, but for the characters in it that a terminal would obey."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
