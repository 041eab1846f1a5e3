"""Entry point: errors become one line and an exit code, whatever happens to the streams and whenever it is stopped."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Timer, main_thread
from types import CodeType
from typing import Any

_LONGEST = 500  # characters of a message
_MOMENT = 0.01  # seconds
_NO_MEMORY = (  # in errors of C++, of the linker and of threads
    *("can't allocate memory", "annot allocate memory", "bad_alloc", "out of memory"),
    *("failed to map segment", "can't start new thread"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 if `check` finds a fault, 2 after an error of the user.

    Returns 130 or 143 when stopped, 141 if nobody reads.
    """
    received: list[int] = []
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where it keeps its fonts
    with _stoppable(received), _forgiving():
        try:
            return _message_of(lambda: _run(arguments))
        except BaseException as error:
            if not received and not isinstance(error, KeyboardInterrupt):
                raise
            how_to_go_on = f"; {error}" if isinstance(error, KeyboardInterrupt) and str(error) else ""
            if _speaks():
                print(f"stopped{how_to_go_on}", file=sys.stderr)
            return 128 + (received or [signal.SIGINT])[0]


def _message_of(run: Callable[[], int]) -> int:
    try:
        return run()
    except ModuleNotFoundError as error:
        message = f"{error.name} is missing; install it with: pip install 'lopsided[tool]'"
    except BrokenPipeError as error:
        if error.filename == "-":
            return 128 + signal.SIGPIPE
        message = f"{error.filename}: {error.strerror}"
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except (MemoryError, RuntimeError, ImportError) as error:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
            message = "there is not enough memory"
        elif _is_left_alone(error):
            message = "another of the processes that train died; start them again"
        else:
            raise
    return _fail(message)


def _run(arguments: Sequence[str] | None) -> int:
    import typer

    from lopsided.cli import app
    from lopsided.data.storage import UserError
    from lopsided.jobs.threads import wait_asleep

    wait_asleep()
    command = typer.main.get_command(app)
    try:
        with command.make_context("lopsided", list(sys.argv[1:] if arguments is None else arguments)) as context:
            command.invoke(context)
        return 0
    except typer.Exit as error:
        return error.exit_code
    except UserError as error:
        message = _from_here(str(error))
    except typer.TyperException as error:
        message = error.format_message()
    return _fail(message)


def _from_here(message: str) -> str:
    """Returns a message with the paths in it that lie below the working directory told from there."""
    try:
        here = os.path.join(os.getcwd(), "")
    except FileNotFoundError:  # it was removed
        return message
    return message if here == os.sep else re.sub(rf"(?<![\w./\\-]){re.escape(here)}(?=[^\s'\"])", "", message)


def _fail(message: str) -> int:
    """Prints one line, whose middle is left out where it is long."""
    if _speaks():
        line = " ".join("".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in message).split())
        if len(line) > _LONGEST:
            line = f"{line[: 2 * _LONGEST // 3 - 20]} … {line[-_LONGEST // 3 :]}"
        print(f"lopsided: {line}", file=sys.stderr)
    return 2


def _speaks() -> bool:
    """Tells whether this process says why it ends; of several that train, one does."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from lopsided.training.processes import is_first_to_end

    return is_first_to_end()


def _is_left_alone(error: Exception) -> bool:
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return False
    from lopsided.training.processes import is_lost

    return is_lost(error)


class _Stop(KeyboardInterrupt):
    """Stops a command.

    After a plain KeyboardInterrupt in code that `exec` runs from a text, as imports do, Python ends by SIGINT, whatever
    the exit code.
    """


@contextmanager
def _stoppable(received: list[int]) -> Iterator[None]:
    """Makes SIGINT and SIGTERM a KeyboardInterrupt, wherever it is raised, and notes which it was."""

    def stop(number: int, _: Any) -> None:
        received.append(number)
        raise _Stop

    timers: list[Timer] = []

    def again(unraised: Any) -> None:
        """Stops a moment later where the exception came up in a callback, which Python would only report.

        Not at once: it would come up in this function, which is such a callback itself.
        """
        if isinstance(unraised.exc_value, KeyboardInterrupt) and received:
            timers.append(Timer(_MOMENT, _signal_main_thread, (received[0], again.__code__)))
            timers[-1].start()
        else:
            sys.__unraisablehook__(unraised)

    old: dict[int, Any] = {}
    with suppress(ValueError):  # handlers belong to the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                old[number] = signal.signal(number, stop)
    hook, sys.unraisablehook = sys.unraisablehook, again if old else sys.unraisablehook
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = hook
        for each, handler in old.items():
            signal.signal(each, handler)


def _signal_main_thread(number: int, hook: CodeType) -> None:
    """Sends a signal where handlers run, so that a wait there ends; Windows has no waits that a signal ends.

    On a busy machine that thread may still be in the hook: an exception there would be lost.
    """
    while hook in _running_in_main_thread():
        time.sleep(_MOMENT)
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(main_thread().ident or 0, number)


def _running_in_main_thread() -> Iterator[CodeType]:
    frame = sys._current_frames().get(main_thread().ident or 0)
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


@contextmanager
def _forgiving() -> Iterator[None]:
    """Lets nothing that is said stop what is done: a stream may be closed, broken, full, or lack a letter."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # or the next file that is opened would be taken for this stream
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_Forgiving, streams)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams


class _Forgiving:
    """Passes on what a stream takes; once it takes nothing more, the rest is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115
        with suppress(AttributeError, ValueError):
            self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self._stream.flush()

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


if __name__ == "__main__":
    sys.exit(main())
