"""Runs the command in a child of this process, which has imported everything already, and judges how it ended."""

import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LONGEST = 500  # characters of a message
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # what a terminal obeys


@dataclass(frozen=True)
class Ended:
    """How a child ended. code: its exit status, or minus the signal that ended it. seconds: of the processor."""

    code: int
    out: str
    err: str
    seconds: float
    megabytes: int  # at most held

    def fault(self, most_seconds: float = 20) -> str | None:
        """What is wrong with it, whatever was asked: a traceback, several lines or signs that a terminal obeys."""
        if "Traceback (most recent call last)" in self.err:
            return "traceback: " + self.err.strip().splitlines()[-1][:200]
        if self.code not in (0, 2, 130, 143):
            return f"ended with {self.code}: {self.err[-200:]}"
        *notes, last = self.err.splitlines() or [""]
        if self.code == 2 and (not last.startswith("lopsided: ") or any(note.startswith("lopsided") for note in notes)):
            return f"not one line: {self.err[-300:]!r}"
        if any(len(line) > LONGEST for line in self.err.splitlines()):
            return f"a message of {len(self.err)} characters: {self.err[:200]!r}"
        if obeyed := _OBEYED.search(self.out + self.err):
            return f"{obeyed[0]!r} reaches the terminal"
        return f"{self.seconds:.1f} s" if self.seconds > most_seconds else None


def in_child(
    function: Callable[[], int], where: Path, limits: Sequence[tuple[int, int]] = (), timeout: float = 600
) -> Ended:
    """Calls a function in a child of this process, in a working directory; kills it after so many seconds.

    limits: pairs of a resource and how much of it the child may have.
    """
    ends = [os.pipe(), os.pipe()]  # no files, of which a limit may allow none
    pid = os.fork()
    if not pid:
        _run(function, where, limits, ends[0][1], ends[1][1])
    for _, end in ends:
        os.close(end)
    with ThreadPoolExecutor(2) as readers:
        out, err = (readers.submit(_read, end) for end, _ in ends)
        status, used = _wait(pid, timeout)
    seconds = used.ru_utime + used.ru_stime
    return Ended(os.waitstatus_to_exitcode(status), out.result(), err.result(), seconds, used.ru_maxrss // 1024)


def _read(end: int) -> str:
    with open(end, "rb") as file:
        return file.read().decode("utf-8", "backslashreplace")


def _run(function: Callable[[], int], where: Path, limits: Sequence[tuple[int, int]], out: int, err: int) -> None:
    """What the child does; it never returns."""
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
        os.chdir(where)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for kind, most in limits:
            resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
        code = function()
        if sys.stdout is stdout:
            stdout.flush()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _wait(pid: int, timeout: float) -> tuple[int, resource.struct_rusage]:
    end = time.monotonic() + timeout
    pause = 0.001
    while True:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            return status, used
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            return os.wait4(pid, 0)[1:]
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
