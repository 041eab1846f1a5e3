"""Of two processes that train one dies, or its disk is full: the other ends soon, in one line, and the run goes on."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lopsided.__main__ import main
from tests.tools import write_texts
from tests.training.test_processes import launch

ENDING = """
import json, os, resource, signal, sys, time
from pathlib import Path
from lopsided.__main__ import main
from lopsided.training import loop

loop._SAVE_SECONDS, step, rank = 0, loop._Loop._step, os.environ["RANK"]
sys.stderr = Path("err" + rank).open("w", 1)

def step_or_end(self, rows):
    place = len(self.state.progress.history), self.state.progress.step
    if place == (1, 2) and rank == "{rank}":
        Path("end").touch()
        {end}
    return step(self, rows)

if "{rank}" == "early":
    from lopsided.jobs import begin
    prepared = begin._prepared

    def prepare_or_end(*arguments):
        Path("begun" + rank).touch()
        while rank == "1" and not Path("begun0").exists():  # a process that is stopped before says nothing
            time.sleep(0.1)
        if rank == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return prepared(*arguments)

    begin._prepared = prepare_or_end

loop._Loop._step = step_or_end
code = main(*json.loads(sys.argv[1]))
Path("code" + rank).write_text(str(code))
sys.exit(code)
"""
LINE = ["fit", "texts.jsonl", "--epochs", "3", "--batch-size", "16", "--model", "ngrams(hidden=8)"]
ENDS = {
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "disk": "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))",
    "memory": "raise MemoryError",
}
# "stopped" where torchrun ends the process that is left before that one has noticed
DIED = r"(stopped|lopsided: another of the 2 processes that train died); go on with: lopsided fit run\n"
SAID = {
    ("kill", 0): DIED,
    ("disk", 0): r"lopsided: run/state\.safetensors: File too large\n",
    ("memory", 1): r"lopsided: there is not enough memory\n",
}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL and limits of a process, which Windows lacks")
@pytest.mark.parametrize(("end", "rank"), SAID)
def test_where_one_ends_all_end_in_one_line_and_the_run_goes_on(folder: Path, end: str, rank: int) -> None:
    write_texts(folder / "texts.jsonl", 120)
    result = launch(ENDING.format(rank=rank, end=ENDS[end]), [*LINE, "--out", "run"])
    assert time.time() - (folder / "end").stat().st_mtime < 60
    assert result.returncode != 0
    said = "".join((folder / f"err{each}").read_text() for each in range(2))
    assert re.fullmatch(SAID[end, rank], said), said
    if (folder / f"code{1 - rank}").exists():  # torchrun stops a process that is left even after its last line
        assert (folder / f"code{1 - rank}").read_text() in ("2", "143")
    assert main(["fit", "run"]) == 0, "one goes on as two would"
    assert main([*LINE, "--out", "whole"]) == 0
    models = [load_file(folder / name / "model.safetensors") for name in ("run", "whole")]
    assert models[0].keys() == models[1].keys()
    for name, values in models[0].items():
        assert (values - models[1][name]).abs().max() < 1e-5, name


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL, which Windows lacks")
def test_one_that_dies_before_there_is_a_run_is_told(folder: Path) -> None:
    write_texts(folder / "texts.jsonl", 120)
    assert launch(ENDING.format(rank="early", end="pass"), [*LINE, "--out", "run"]).returncode != 0
    said = (folder / "err0").read_text()
    assert re.fullmatch(r"(stopped|lopsided: another of the processes that train died; start them again)\n", said), said


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_without_a_store_the_first_process_says_why_it_ends(folder: Path, rank: str) -> None:
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "19"}
    line = [sys.executable, "-m", "lopsided", "fit", "nothing.csv"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    expected = "lopsided: nothing.csv: no such file\n" if rank == "0" else ""
    assert (done.returncode, done.stderr) == (2, expected)
