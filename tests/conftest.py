import json
import os
from pathlib import Path

import hypothesis
import pytest
import torch

from lopsided.__main__ import main
from tests.tools import HOSTILE, TINY

# The examples are the same at each run; `--hypothesis-profile=search` looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None, max_examples=50)
hypothesis.settings.register_profile("search", database=None, deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile("same")

COMPILES = (2, 13)  # torch 2.4 to 2.8 cannot compile methods of named tuples; those between were not tried
SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """Workers of `pytest -n` share the cores: one thread for each, and for the processes that they start.

    The fast part leaves out what imports Lightning, which takes longer than hundreds of its tests.
    """
    if config.option.markexpr == "not slow":
        config.option.ignore_glob = [*(config.option.ignore_glob or []), "*/*lightning.py"]
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)  # before those that `-m` leaves out are chosen
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test of a trained run is slow, since the run is trained for it; what compiles needs a torch that can."""
    old = tuple(map(int, torch.__version__.split(".")[:2])) < COMPILES
    for item in items:
        if old and item.get_closest_marker("compiles"):
            item.add_marker(pytest.mark.skip(reason=f"torch.compile of a loss is known to work from {COMPILES} on"))
        if {"finished", "texts"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of oracle vectors and data sets that lies beside a working copy; it is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data folder {SHARED}, which is not here")
    return SHARED


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    assert main(["compare", *TINY, "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the same losses on texts and labels that try to break out of a page."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [
        {"text": f"{HOSTILE[i % 6]} </bdi></textarea> {i}", "labels": [HOSTILE[i % 6], HOSTILE[i * i % 5]]}
        for i in range(60)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--losses", "asl,bce,zlpr", "--epochs", "1", "--out", str(folder / "run")]
    assert main(["compare", str(folder / "texts.jsonl"), *options]) == 0
    return folder / "run"
