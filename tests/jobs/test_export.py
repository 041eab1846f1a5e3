"""`lopsided export`: the graph gives what the model gives, in onnxruntime, for any number of rows."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lopsided
from lopsided.__main__ import main
from lopsided.data.inputs import Inputs, Table, Texts
from lopsided.data.storage import UserError
from lopsided.jobs.export import deployable, export
from lopsided.models.tables import Mlp
from tests.models.pictures import pictures, write
from tests.tools import write_texts

ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs/models.md"
OWN = "tests.jobs.test_export:make_own"


def make_own(encoder: Any) -> Mlp:
    return Mlp(encoder.columns.scale.width, encoder.columns.num_codes, hidden=4)


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


@pytest.mark.parametrize(("model", "loss"), [("ngrams", "asl"), ("ngrams(hidden=8)", "asl(threshold_logit=0)")])
def test_texts_with_hashing_as_the_page_on_models_has_it(tmp_path: Path, model: str, loss: str) -> None:
    data = write_texts(tmp_path / "texts.jsonl")
    run = tmp_path / "run"
    assert main(["fit", str(data), "--model", model, "--loss", loss, "--epochs", "3", "--out", str(run)]) == 0
    texts = ("the goal today", "a song", "bread and guitar", "none of them", "")
    result = check_graph(run, Texts(texts))

    code = re.search(r"^```python bags.py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    arrays = names["bags"](texts, tmp_path / "graph" / "model.onnx")
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


@pytest.mark.parametrize("rule", ["top-1", "expected-f1", "own --at-least-one"])
def test_a_rule_that_the_graph_cannot_hold_is_refused_at_once(
    rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = tmp_path / "run", write_texts(tmp_path / "texts.jsonl")
    assert main(["fit", str(data), "--decide", *rule.split(), "--out", str(run)]) == 0
    assert main(["export", str(run), "--out", str(tmp_path / "model.onnx")]) == 2
    assert "orders or counts the labels of a row, which the graph cannot; train it again" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["mlp(hidden=8)", "linear", OWN])
def test_tables_as_they_are_in_the_file(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are standardised in the graph, which nobody who feeds it could guess."""
    monkeypatch.setenv("LOPSIDED_TRUST", OWN)
    random = np.random.default_rng(0)
    numbers = random.normal(size=(200, 3)).astype(np.float32) * np.array([1, 1e-3, 1e5], np.float32)
    numbers[::20, 1] = np.nan
    np.save(tmp_path / "rows.npy", numbers)
    np.save(tmp_path / "labels.npy", (numbers[:, :2] > 0).astype(np.int8))
    run = tmp_path / "run"
    options = ["--targets-file", str(tmp_path / "labels.npy"), "--model", model, "--epochs", "3", "--out", str(run)]
    assert main(["fit", str(tmp_path / "rows.npy"), *options]) == 0
    rows = torch.from_numpy(numbers[:7])
    expected = check_graph(run, Table.of_numbers(rows))["scores"]
    by_hand = run_graph(tmp_path / "graph" / "model.onnx", (rows, torch.zeros(7, 0, dtype=torch.long)))
    np.testing.assert_allclose(by_hand["scores"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["patches(patches=8, size=24)", "resnet(channels=8, size=24)", "vision(path=VIT)"])
def test_images_as_pixels(model: str, tmp_path: Path) -> None:
    """Features that are computed once, without training, are computed in the graph as well."""
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(image_size=24, patch_size=8, **small)
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    images, truth = pictures(60)
    files = write(tmp_path, images)
    lines = [f"{name},{int(a)},{int(b)}" for name, (a, b) in zip(files.names, truth, strict=True)]
    (tmp_path / "list.csv").write_text("\n".join(["file_name,patch,line", *lines]))
    options = ["--label-columns", "patch,line", "--model", model.replace("VIT", str(tmp_path / "vit")), "--epochs", "1"]
    run = tmp_path / "run"
    assert main(["fit", str(tmp_path / "list.csv"), *options, "--out", str(run)]) == 0
    rows = torch.arange(7)
    expected = check_graph(run, files.take(rows))["scores"]
    by_hand = run_graph(tmp_path / "graph" / "model.onnx", (images.pixels[rows],))
    np.testing.assert_allclose(by_hand["scores"], expected, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_exported_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"must end in \.onnx"):
        export(tmp_path, Path("model.pt"))
    assert main(["export", str(tmp_path), "--out", "model.onnx"]) == 2
    assert "not a run folder" in capsys.readouterr().err
