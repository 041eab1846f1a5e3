"""Entry point: errors become one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 2 after an error of the user, or 130 when stopped by Ctrl-C."""
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        message = f"{error.name} is missing; install it with: pip install 'lopsided[tool]'"
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return _fail(message)


def _fail(message: str) -> int:
    if os.environ.get("RANK", "0") == "0":  # of several processes that train, the first one prints
        print(f"lopsided: {message}", file=sys.stderr)
    return 2


def _run(arguments: Sequence[str] | None) -> int:
    import typer

    from lopsided.cli import app
    from lopsided.data.storage import UserError

    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except UserError as error:
        message = str(error)
    except typer.TyperException as error:
        message = error.format_message()
    return _fail(" ".join(message.split())) if message else 2  # it is empty after the help that a bare command prints


if __name__ == "__main__":
    sys.exit(main())
