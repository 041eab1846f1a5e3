import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

pytest.importorskip("transformers")

from lopsided.data.inputs import Texts
from lopsided.data.storage import UserError
from lopsided.models.pretrained import PretrainedText, TokenPool, in_parts
from lopsided.models.transformers import Transformer
from lopsided.nn.head import LinearHead
from lopsided.targets import SparseTargets
from tests.models.tiny import WORDS, tokenizer, write_encoder

TEXTS = Texts(("alpha beta", "gamma", "", "one two three four five six unheard of", "delta \ud800 alpha"))
ALL = torch.arange(len(TEXTS))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def hidden(encoder: Transformer, body: Any, rows: Tensor = ALL) -> Tensor:
    with torch.no_grad():
        return body.eval()(*encoder.encode(TEXTS).batch(rows))  # type: ignore[no-any-return]


def of_each_text(path: str, pooling: str) -> Tensor:
    """The same by transformers alone, one text at a time, without padding."""
    from transformers import AutoModel

    model, rows = AutoModel.from_pretrained(path), []
    for text in TEXTS.texts:
        ids = tokenizer().encode(text.encode("utf-8", "replace").decode()).ids
        states = model(torch.tensor([ids])).last_hidden_state[0]
        rows.append(states[0] if pooling == "cls" else states.mean(0))
    return torch.stack(rows).detach()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_features_are_those_of_each_text_alone(path: str, pooling: str) -> None:
    expected = of_each_text(path, pooling)
    tuned = Transformer.fit(TEXTS, path=path, freeze=False, pooling=pooling)
    torch.testing.assert_close(hidden(tuned, tuned.make_body()), expected, atol=1e-5, rtol=1e-5)
    frozen = Transformer.fit(TEXTS, path=path, pooling=pooling)
    torch.testing.assert_close(frozen.encode(TEXTS).batch(ALL)[0], expected, atol=1e-5, rtol=1e-5)
    scaled = hidden(frozen, frozen.make_body())
    torch.testing.assert_close(scaled.mean(0), torch.zeros(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(32), atol=1e-4, rtol=0)


@pytest.mark.parametrize("freeze", [True, False])
def test_attention_gives_a_mean_for_each_query(path: str, freeze: bool) -> None:
    """A query of zeros gives the mean of all; one along a state gives a mean that is nearer to that state."""
    encoder = Transformer.fit(TEXTS, path=path, freeze=freeze, pooling="attention", queries=3)
    body: Any = encoder.make_body()
    assert body.width == 96
    pool = body if freeze else body.pool
    with torch.no_grad():
        pool.queries[1] = 0
    tolerance = 1e-3 if freeze else 1e-5  # states are held in float16
    parts = hidden(encoder, body).split(32, dim=1)
    torch.testing.assert_close(parts[1], of_each_text(path, "mean"), atol=tolerance, rtol=tolerance)
    assert (parts[0] - parts[2]).abs().max() > 1e-3


def test_attention_sees_no_padding() -> None:
    torch.manual_seed(0)
    pool, states = TokenPool(4, "attention", 2), torch.randn(1, 3, 4)
    padded = torch.cat([states, torch.full((1, 2, 4), 9.0)], 1)
    mask = torch.tensor([[True, True, True, False, False]])
    torch.testing.assert_close(pool(padded, mask), pool(states, mask[:, :3]))


@pytest.mark.parametrize(("freeze", "pooling"), [(True, "mean"), (True, "attention"), (False, "cls")])
def test_a_stored_model_needs_no_path(tmp_path: Path, freeze: bool, pooling: str) -> None:
    """All goes through JSON and safetensors, and the folder that the encoder came from is gone."""
    encoder = Transformer.fit(TEXTS, path=write_encoder(tmp_path / "e"), freeze=freeze, pooling=pooling, length=5)
    body: Any = encoder.make_body()
    values, tensors = encoder.stored()
    (tmp_path / "e").rename(tmp_path / "gone")
    again = Transformer.from_stored(json.loads(json.dumps(values)), load(save(tensors)))
    network: Any = again.make_body()
    network.load_state_dict(load(save(body.state_dict())))
    assert torch.equal(hidden(again, network), hidden(encoder, body))
    assert bool(tensors) == freeze  # weights that are fine-tuned stand once in a run, among those of the network


def test_the_random_state_is_that_of_the_head_alone(path: str) -> None:
    encoder = Transformer.fit(TEXTS, path=path, freeze=False)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    encoder.make_body()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"pooling": "attention", "queries": 2}, {"freeze": False}])
def test_it_learns_which_words_stand_in_a_text(path: str, settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(160, 4, generator=generator) < 0.3
    drawn[:, 0] |= ~drawn.any(1)
    inputs = Texts(tuple(" ".join(word for word, on in zip(WORDS, row, strict=False) if on) for row in drawn.tolist()))
    targets = SparseTargets.from_indices([row.nonzero()[:, 0].tolist() for row in drawn])
    encoder = Transformer.fit(inputs, path=path, **settings)
    torch.manual_seed(0)
    body, encoded = encoder.make_body(), encoder.encode(inputs)
    assert isinstance(body, torch.nn.Module)
    head = LinearHead(body.width, 4, "bce", prior=0.3, reduction="batchmean")
    rate = 3e-3 if settings.get("freeze") is False else 2e-2
    optimizer = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=rate)
    for _ in range(60):
        value = head(body(*encoded.batch(torch.arange(160))), targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    body.eval()
    with torch.no_grad():
        logits = head.logits(body(*encoded.batch(torch.arange(160))))
    assert ((logits > 0) == drawn).double().mean() > 0.97


def test_parts_hold_every_row_once_and_few_tokens() -> None:
    lengths = torch.randint(1, 512, (300,), generator=torch.Generator().manual_seed(0))
    order, parts = in_parts(lengths)
    assert torch.equal(torch.cat([part for part, _ in parts]), order)
    assert torch.equal(order.sort().values, torch.arange(300))
    assert all(int(lengths[part].max()) == length and len(part) * length <= 8192 for part, length in parts)


def test_long_texts_are_cut_off(path: str) -> None:
    long = Texts(("alpha " * 500,))
    assert len(Transformer.fit(TEXTS, path=path, length=7, freeze=False).encode(long).batch(torch.arange(1))[0][0]) == 7
    encoder = Transformer.fit(TEXTS, path=path, length=5000)  # there are 64 positions
    assert encoder.pretrained.length == 64
    assert encoder.encode(long).batch(torch.arange(1))[0].isfinite().all()


def test_what_cannot_be_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, message in (
        ({}, "say which"),
        ({"path": path, "pooling": "max"}, "got 'max'"),
        ({"path": path, "queries": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Transformer.fit(TEXTS, **settings)
    with pytest.raises(UserError, match="cannot load a text encoder and its tokenizer from"):
        Transformer.fit(TEXTS, path=str(tmp_path / "nothing" / "there"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"transformers.*pip install 'lopsided\[transformers\]'"):
        Transformer.fit(TEXTS, path=path)


def test_rows_of_a_batch_may_stand_in_any_order(path: str) -> None:
    encoder = Transformer.fit(TEXTS, path=path, freeze=False)
    body = encoder.make_body()
    assert isinstance(body, PretrainedText)
    rows = torch.tensor([3, 0, 3, 1])
    torch.testing.assert_close(hidden(encoder, body, rows), hidden(encoder, body)[rows])
    body.eval()
    with_gradient = body(*encoder.encode(TEXTS).batch(rows))
    torch.testing.assert_close(with_gradient.detach(), hidden(encoder, body, rows))


def test_a_head_on_fixed_features_is_solved_unless_it_is_not_to_be(path: str) -> None:
    """Attention has weights below the head, and so have encoders that are fine-tuned."""
    in_steps: tuple[dict[str, Any], ...] = ({"solve": False}, {"pooling": "attention"}, {"freeze": False})
    assert Transformer.fit(TEXTS, path=path).recipe(100, 3).optimizer == "solve"
    assert {Transformer.fit(TEXTS, path=path, **each).recipe(100, 3).optimizer for each in in_steps} == {"adamw"}
