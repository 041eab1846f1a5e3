"""Entry point: errors become one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 2 after an error of the user, or 130 when stopped by Ctrl-C."""
    try:
        import typer

        from lopsided.cli import app
        from lopsided.errors import UserError
    except ModuleNotFoundError as error:
        print(f"lopsided: {error.name} is missing; install it with: pip install 'lopsided[tool]'", file=sys.stderr)
        return 2
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except UserError as error:
        message = str(error)
    except typer.TyperException as error:
        message = error.format_message()
    except (typer.Abort, KeyboardInterrupt):
        return 130
    if message:  # empty after the help that a bare command prints
        print(f"lopsided: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
