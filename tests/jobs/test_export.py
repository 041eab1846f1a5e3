"""`lopsided export`: the graph gives what the model gives, in onnxruntime, for any number of rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.sparse import hstack
from sklearn.feature_extraction.text import HashingVectorizer

import lopsided
from lopsided.__main__ import main
from lopsided.data.inputs import Inputs, Table, Texts
from lopsided.data.storage import UserError
from lopsided.jobs.export import deployable, export
from tests.tools import write_texts

ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow


def run_graph(path: Path, batch: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(str(path))
    beside = json.loads(path.with_suffix(".json").read_text())
    assert [each.name for each in session.get_inputs()] == beside["inputs"]
    values = session.run(None, dict(zip(beside["inputs"], (each.numpy() for each in batch), strict=True)))
    return dict(zip(beside["outputs"], values, strict=True))


def check_graph(run: Path, inputs: Inputs) -> dict[str, np.ndarray]:
    out = run.parent / "graph" / "model.onnx"
    assert main(["export", str(run), "--out", str(out)]) == 0
    predictor = lopsided.load(run)
    encoded, deployed = deployable(predictor, inputs)
    result = {}
    for rows in (1, len(inputs)):
        batch = encoded.batch(torch.arange(rows))
        result = run_graph(out, batch)
        with torch.no_grad():
            expected = dict(zip(deployed.outputs, deployed(*batch), strict=True))
        assert result.keys() == expected.keys() == {"scores", "probabilities", "decided"}
        for name, value in expected.items():
            np.testing.assert_allclose(result[name], value.numpy(), rtol=1e-5, atol=1e-5, err_msg=name)
    scores = predictor.model.score(predictor.model.encode(inputs)).values
    np.testing.assert_allclose(result["scores"], scores, rtol=1e-5, atol=1e-5)
    labels = json.loads(out.with_suffix(".json").read_text())["labels"]
    predictions = predictor.predict(inputs)
    decided = [{labels[place] for place in np.flatnonzero(row)} for row in result["decided"]]
    assert decided == [set(each["labels"]) for each in predictions]
    return result


@pytest.mark.parametrize("model", ["ngrams", "ngrams(hidden=8)"])
def test_texts_with_hashing_done_by_scikit_learn_alone(tmp_path: Path, model: str) -> None:
    data = write_texts(tmp_path / "texts.jsonl")
    run = tmp_path / "run"
    assert main(["fit", str(data), "--model", model, "--epochs", "3", "--out", str(run)]) == 0
    texts = ("the goal today", "a song", "bread and guitar", "none of them", "")
    result = check_graph(run, Texts(texts))

    beside = json.loads((tmp_path / "graph" / "model.json").read_text())["encoder_values"]
    stored = load_file(tmp_path / "graph" / "model.safetensors")
    plain: dict[str, Any] = {"n_features": 2**22, "alternate_sign": False, "norm": None}
    hashers = [HashingVectorizer(ngram_range=(1, 2), **plain)]
    if beside["characters"]:
        hashers.append(HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), **plain))
    parts = []
    for kind, hasher in enumerate(hashers):
        here = stored["filled"] // 2**22 == kind
        counts = hasher.transform(texts)[:, stored["filled"][here] % 2**22]
        counts.data = (1 + np.log(counts.data)) * stored["weights"][here][counts.indices]
        lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(1)).ravel())
        parts.append(counts.multiply(1 / np.where(lengths > 0, lengths, 1)[:, None]).tocsr())
    bags = hstack(parts, format="csr")
    arrays = bags.indices.astype(np.int64), bags.indptr[:-1].astype(np.int64), bags.data.astype(np.float32)
    by_hand = run_graph(tmp_path / "graph" / "model.onnx", tuple(map(torch.from_numpy, arrays)))
    np.testing.assert_allclose(by_hand["scores"], result["scores"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", ["pooling=mean", "freeze=False, pooling=labels"])
def test_transformers_with_their_tokens(tmp_path: Path, settings: str) -> None:
    pytest.importorskip("transformers")
    from tests.models.tiny import tokenizer, write_encoder

    model = f"transformer(path={write_encoder(tmp_path / 'encoder')}, {settings})"
    run, data = tmp_path / "run", write_texts(tmp_path / "texts.jsonl")
    assert main(["fit", str(data), "--model", model, "--epochs", "1", "--out", str(run)]) == 0
    texts = ("alpha beta", "one two three gamma", "", "unheard of")
    result = check_graph(run, Texts(texts))

    beside = json.loads((tmp_path / "graph" / "model.json").read_text())["encoder_values"]
    by_hand = tokenizer().from_str(beside["tokenizer"])
    by_hand.enable_padding(pad_id=beside["config"]["pad_token_id"])
    encodings = by_hand.encode_batch(texts)
    arrays = np.array([each.ids for each in encodings]), np.array([each.attention_mask for each in encodings]) > 0
    scores = run_graph(tmp_path / "graph" / "model.onnx", tuple(map(torch.from_numpy, arrays)))["scores"]
    np.testing.assert_allclose(scores, result["scores"], rtol=1e-5, atol=1e-5)


def test_static_vectors_with_their_tokens(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    from tests.models.test_static import TEXTS, write

    run, data = tmp_path / "run", write_texts(tmp_path / "texts.jsonl")
    model = f"static(path={write(tmp_path / 'table')})"
    assert main(["fit", str(data), "--model", model, "--epochs", "1", "--out", str(run)]) == 0
    check_graph(run, TEXTS)


def test_tables(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    numbers = random.normal(size=(200, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", numbers)
    np.save(tmp_path / "labels.npy", (numbers[:, :2] > 0).astype(np.int8))
    run = tmp_path / "run"
    options = ["--targets-file", str(tmp_path / "labels.npy"), "--epochs", "3", "--out", str(run)]
    assert main(["fit", str(tmp_path / "rows.npy"), *options]) == 0
    check_graph(run, Table.of_numbers(torch.from_numpy(numbers[:7])))


def test_what_cannot_be_exported_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"must end in \.onnx"):
        export(tmp_path, Path("model.pt"))
    assert main(["export", str(tmp_path), "--out", "model.onnx"]) == 2
    assert "not a run folder" in capsys.readouterr().err
