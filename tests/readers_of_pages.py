"""The pages of the project, their blocks of code, and the files that a reader of each is supposed to have."""

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch._C._distributed_c10d import HashStore

from lopsided.__main__ import main
from lopsided.data.make_xmc import XmcMaker, make_xmc
from tests.tools import write_texts

ROOT = Path(__file__).parents[1]
FOLDERS = ("", "docs/", "docs/losses/", "examples/*/", "studies/*/")
PAGES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in ROOT.glob(f"{folder}*.md"))
_FENCED = re.compile(r"^```(\w+|\{[\w-]+\})(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: str
    line: int  # of its first line of code
    language: str
    words: str  # behind the language: the name of a file, or why no test runs it
    code: str

    @property
    def marked(self) -> str:
        """Why it is run nowhere; empty if it is run."""
        return self.words.removeprefix("no test: ") if self.words.startswith("no test") else ""

    @property
    def file(self) -> str:
        """The file in which a reader keeps it; empty if it is none."""
        return self.words if re.fullmatch(r"[\w-]+\.\w+", self.words) else ""

    def commands(self) -> list[str]:
        """The commands of a block for the shell, one a line, without comments."""
        lines = re.sub(r" *\\\n *", " ", self.code).splitlines()
        return [command for line in lines if (command := re.sub(r"(^|\s+)#.*", "", line))]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    text = read(page)
    return [
        Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2].strip(), match[3])
        for match in _FENCED.finditer(text)
    ]


# ---- what a reader has


def _texts(folder: Path) -> None:
    for place, name in enumerate(("train", "valid", "test", "other")):
        write_texts(folder / f"{name}.jsonl", 60, first=60 * place)
    (folder / "train.csv").write_text("body,tags\n" + "".join(f"text {i},a;b{i % 2}\n" for i in range(40)))


def _rows_and_scores(folder: Path) -> None:
    """Texts; truth and scores of test and of validation rows, as other tools write them."""
    _texts(folder)
    draw = np.random.default_rng(0)
    for part in ("", "v"):
        truth = draw.random((60, 3)) < 0.4
        np.savez(folder / f"{part or 'y'}.npz", truth)
        if not part:
            np.savetxt(folder / "y.csv", truth, fmt="%d", delimiter=",", header="p,q,r", comments="")
        for name, strength in (("b", 1), ("a", 2)):
            for seed in range(3):
                scores = strength * truth + draw.normal(size=truth.shape)
                np.savez(folder / f"{part}{name}{seed}.npz", scores)
                file = folder / f"{'bce' if name == 'b' else 'mine'}-seed{seed}.csv"
                np.savetxt(file, scores, delimiter=",", header="p,q,r", comments="")


def tickets(folder: Path) -> None:
    """A CSV whose words give the labels away, and the same texts without labels."""
    words = {"billing": ("invoice", "charged"), "login": ("password", "account")}
    rows = [
        (f"number {i}: " + " and ".join(words[label][i % 2] for label in labels), ",".join(labels))
        for i in range(60)
        if (labels := [label for place, label in enumerate(words) if i % (place + 2) == 0]) or i % 3
    ]
    for name, columns in (("tickets", 2), ("new", 1)):
        lines = [("text", "labels"), *rows]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(line[:columns] for line in lines)


def _sparse(folder: Path) -> None:
    make_xmc(folder, XmcMaker(20, 30), rows=100, test_rows=20)
    shutil.copy(folder / "test.txt", folder / "new.txt")


def _own_model(folder: Path) -> None:
    """Tables of numbers, a run of the page's own model on them, and texts of two columns."""
    rows = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(60)]
    (folder / "numbers.csv").write_text("\n".join(["x,y,labels", *rows]) + "\n")
    (folder / "new.csv").write_text("\n".join(["x,y", *(row[:-2] for row in rows)]) + "\n")
    assert main(["fit", "numbers.csv", "--model", "my_models:make_model", "--epochs", "1", "--out", "RUN"]) == 0
    for name in ("tickets", "later"):
        lines = [f"{name} {i},about {'ab'[i % 2]},{'ab'[i % 2]}" for i in range(60)]
        (folder / f"{name}.csv").write_text("\n".join(["subject,body,labels", *lines]) + "\n")


def _one_process(folder: Path) -> None:
    """Texts, and a group of processes with this one alone."""
    _texts(folder)
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)


@dataclass(frozen=True)
class Reader:
    """Whoever reads a page: files that are there before it is read, and what is written otherwise in its commands."""

    files: Callable[[Path], None] = lambda folder: None
    instead: tuple[tuple[str, str], ...] = ()
    runs: tuple[str, ...] = ()  # folders of finished comparisons


_SHORT = "--epochs 2 --learning-rate 0.003"
READERS = {
    "README.md": Reader(tickets),
    "docs/comparing.md": Reader(_rows_and_scores, (("--images 300", f"--images 300 {_SHORT}"),)),
    "docs/decisions.md": Reader(_sparse),
    "docs/distributed.md": Reader(_one_process),
    "docs/diagnostics.md": Reader(instead=(("--images 2000 --epochs 6", f"--images 300 {_SHORT}"),)),
    "docs/extreme.md": Reader(
        instead=(
            ("--rows 20000", "--rows 200 --test-rows 40"),
            ("--labels 1000000 --rows 10000 --test-rows 1000", "--labels 3000 --rows 200 --test-rows 40"),
            ("/usr/bin/time -v ", ""),
        )
    ),
    "docs/gamma.md": Reader(_texts, (("--losses", "--seeds 1 --losses"),)),
    "docs/missing.md": Reader(_texts),
    "docs/models.md": Reader(_own_model),
    "docs/real_data.md": Reader(_texts, (("TRAIN", "train.jsonl"), ("TEST", "test.jsonl"), ("BEST", "bce"))),
    "docs/report.md": Reader(instead=(("runs/C ", ""),), runs=("runs/NAME", "runs/A", "runs/B")),
}
