"""A command that is killed at any moment leaves no half file, and the same command then gives what it always gives."""

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from safetensors import safe_open

from lopsided.__main__ import main
from lopsided.data.storage import is_temporary
from lopsided.training import loop
from tests.campaigns.campaign import copied, kind_of, randomness
from tests.campaigns.children import Ended, in_child
from tests.jobs.test_resume import files_of
from tests.tools import write_texts

_STEPS = ["--model", "ngrams(hidden=4, solve=False)", "--batch-size", "16"]
LINES = {
    "fit in steps": ["fit", "texts.jsonl", "--out", "run", "--epochs", "3", *_STEPS],
    "fit, solved": ["fit", "texts.jsonl", "--out", "run", "--test", "0.2"],
    "inspect --missing": ["inspect", "done", "--missing", "--folds", "2"],
    "evaluate": ["evaluate", "done", "more.jsonl"],
    "predict": ["predict", "done", "more.jsonl", "--out", "out.jsonl"],
    "compare": [
        *("compare", "texts.jsonl", "--out", "run", "--losses", "bce,asl", "--seeds", "1", "--epochs", "2"),
        *("--learning-rate", "10", *_STEPS),
    ],
    "report": ["report", "compared"],
}
_OPERATIONS = ((os, "replace"), (os, "fsync"), (os, "unlink"), (os, "mkdir"), (os, "chmod"), (tempfile, "mkstemp"))


class Kills:
    """Kills each command in time, or before or after one of its file operations, or stops it by a signal."""

    name = "kills"
    kinds: tuple[str, ...] = (*list(LINES)[:5], *list(LINES)[:2], *LINES)

    def run(self, numbers: range, seed: int, where: Path) -> Iterator[tuple[int, str | None]]:
        intact, copy = where / "intact", where / "copy"
        whole: dict[str, tuple[Ended, int, dict[str, Any]]] = {}
        make_base(intact)
        for number in numbers:
            name = kind_of(self, number)
            if name not in whole:
                with copied(intact, copy):  # the trial has the same place, which stands in settings
                    whole[name] = _undisturbed(LINES[name], copy)
            with copied(intact, copy):
                yield number, trial(copy, LINES[name], *whole[name], randomness(seed, number))


def make_base(folder: Path) -> None:
    folder.mkdir()
    write_texts(folder / "texts.jsonl", 80)
    write_texts(folder / "more.jsonl", 30, 1000)
    line = ["compare", "texts.jsonl", "--losses", "bce,asl", "--out", "compared"]
    for each in (["fit", "texts.jsonl", "--out", "done"], line):
        ended = in_child(lambda each=each: main(each), folder)  # type: ignore[misc]
        assert ended.code == 0, ended.err
    for path in folder.rglob("config.json"):
        path.write_text(path.read_text().replace(f"{folder}/", ""))


def _undisturbed(line: list[str], where: Path) -> tuple[Ended, int, dict[str, Any]]:
    """Runs a command to its end, counts its file operations, and keeps what it wrote."""

    def child() -> int:
        done = [0]

        def count() -> None:
            done[0] += 1

        _watch(count, count)
        code = main(line)
        (where / "operations").write_text(str(done[0]))
        return code

    ended = in_child(child, where)
    assert ended.code == 0, ended.err
    operations = int((where / "operations").read_text())
    (where / "operations").unlink()
    return ended, operations, _files(where)


def _watch(before: Callable[[], None], after: Callable[[], None]) -> None:
    """Lets something be called around each file operation; states are saved after every step."""
    loop._SAVE_SECONDS = 0
    for module, name in _OPERATIONS:
        setattr(module, name, _around(getattr(module, name), before, after))


def _around(operation: Callable[..., Any], before: Callable[[], None], after: Callable[[], None]) -> Callable[..., Any]:
    def watched(*arguments: Any, **options: Any) -> Any:
        before()
        result = operation(*arguments, **options)
        after()
        return result

    return watched


def trial(
    folder: Path, line: list[str], ended: Ended, operations: int, whole: dict[str, Any], random: Random
) -> str | None:
    """Ends a command in one way, then looks at what it left, and runs it again."""
    way = random.choice(("time", "operation", "operation", "stop"))
    if way == "operation":
        number = random.randrange(operations)
        how, killed = f"killed at operation {number}", in_child(lambda: _killed_at(line, number), folder)
    else:
        after = random.uniform(0, 1.1 * ended.seconds)
        number = 0 if way == "time" else random.choice((signal.SIGINT, signal.SIGTERM))
        how = f"{'killed' if way == 'time' else f'stopped by {number}'} after {after:.3f} s"
        killed = in_child(lambda: _ended_after(line, after, number), folder)
    fault = _after_the_end(folder, line, killed, way, whole)
    return None if fault is None else f"{' '.join(line)}, {how}: {fault}"


def _killed_at(line: list[str], number: int) -> int:
    left = [number]

    def kill() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(kill, kill)
    return main(line)


def _ended_after(line: list[str], seconds: float, number: int) -> int:
    """Runs a command that gets a signal after so many seconds of the processor; 0 for a kill."""
    _watch(lambda: None, lambda: None)
    signal.signal(signal.SIGPROF, (lambda *_: os.kill(os.getpid(), number)) if number else signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-6))
    return main(line)


def _after_the_end(folder: Path, line: list[str], killed: Ended, way: str, whole: dict[str, Any]) -> str | None:
    if way == "stop" and (killed.fault() or (killed.code and killed.err.count("\n") != 1)):
        return f"{killed.fault()}: {killed.err[-300:]}"
    if half := half_written(folder):
        return f"{half} is half written"
    begun = line[0] in ("fit", "compare") and (folder / "run/config.json").exists()
    again = in_child(lambda: main([line[0], "run"] if begun else line), folder)
    if again.code or again.fault():
        return f"then it ends with {again.code}: {again.fault()} {again.err[-300:]}"
    left = [path.name for path in folder.rglob("*") if is_temporary(path) or path.name in ("lock", "state.safetensors")]
    if left:
        return f"{left[0]} is left"
    files = _files(folder)
    different = [name for name in {*files, *whole} if files.get(name) != whole.get(name)]
    return f"{min(different)} is another" if different else None


def _files(folder: Path) -> dict[str, Any]:
    """What must be the same, whether a command was killed or not."""
    others = [*folder.glob("*.jsonl"), *folder.glob("done/results*.json")]
    return files_of(folder) | {path.name: path.read_bytes() for path in others}


def half_written(folder: Path) -> str | None:
    """A file that is not complete."""
    for path in folder.rglob("*"):
        try:
            if is_temporary(path) or path.is_dir():
                continue
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".jsonl":
                [json.loads(each) for each in path.read_text().splitlines()]
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt") as file:
                    file.keys()
            elif path.suffix in (".csv", ".html", ".md") and not path.read_text().endswith(("\n", "</html>")):
                return path.name
        except Exception as error:
            return f"{path.name} ({error})"
    return None
