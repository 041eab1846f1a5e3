"""The weights of a model that is solved are stored in bfloat16; what predicts, and what is tuned, are those weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lopsided.__main__ import main
from lopsided.jobs.folder import RunFolder
from lopsided.jobs.rows import prepare
from tests.tools import load_quietly, write_texts

TABLE = "network.head.linear.table.weight"


@pytest.fixture
def texts_file(folder: Path) -> Path:
    return write_texts(folder / "texts.jsonl", 160)


def fitted(out: str, *options: str) -> RunFolder:
    assert main(["fit", "texts.jsonl", "--test", "0.3", "--out", out, *options]) == 0
    return RunFolder.open(Path(out))


@pytest.mark.slow
@pytest.mark.usefixtures("texts_file")
def test_a_model_that_is_solved_is_stored_in_half_the_space_and_computes_in_float32() -> None:
    plain, short = fitted("plain", "--dtype", "fp32"), fitted("short")
    wide, half = (load_file(each.path / "model.safetensors") for each in (plain, short))
    assert (wide[TABLE].dtype, half[TABLE].dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(wide[TABLE].bfloat16(), half[TABLE])
    assert {name: each.dtype for name, each in wide.items() if name != TABLE} == {
        name: each.dtype for name, each in half.items() if name != TABLE
    }
    assert [json.loads((each.path / "model.json").read_text())["dtype"] for each in (plain, short)] == ["fp32", "bf16"]
    assert {each.dtype for each in short.read_model().network.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.usefixtures("texts_file")
@pytest.mark.parametrize("more", [[], ["--no-refit"], ["--model", "ngrams(hidden=8)", "--dtype", "bf16"]])
def test_what_was_scored_and_tuned_is_what_is_stored(more: list[str]) -> None:
    run = fitted("run", *more)
    model, prepared = run.read_model(), prepare(run.config, load_quietly(run.config))
    assert prepared.test is not None
    again = model.score(prepared.test.encoded, prepared.test.keep)
    assert torch.equal(again.values, run.read_scores("test", len(again)).values)
    if "--no-refit" in more or "--model" in more:
        assert prepared.tuning is not None
        tuned = model.score(prepared.tuning.encoded, prepared.tuning.keep)
        assert torch.equal(tuned.values, run.read_scores("tuning", len(tuned)).values)
    header, tensors = model.stored()
    stored = load_file(run.path / "model.safetensors")
    assert header["dtype"] == "bf16"
    assert all(torch.equal(tensors[name], each) and tensors[name].dtype == each.dtype for name, each in stored.items())


@pytest.mark.slow
@pytest.mark.usefixtures("texts_file")
def test_weights_of_other_models_are_stored_as_they_are() -> None:
    run = fitted("run", "--model", "ngrams(hidden=8)", "--epochs", "1")
    stored = load_file(run.path / "model.safetensors")
    assert {each.dtype for name, each in stored.items() if name.startswith("network")} == {torch.float32}
    assert run.read_model().dtype == "fp32"
