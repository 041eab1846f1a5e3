import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

pytest.importorskip("transformers")

from lopsided.data.pairs import Document, Pairs
from lopsided.models.pair_transformer import PairTransformer, pooled
from lopsided.targets import SparseTargets
from tests.models.test_pairs import trained
from tests.models.tiny import WORDS, write_encoder

LONG = Document(
    "", ("alpha", *("beta",) * 30, "alpha", "gamma", "gamma", "delta"), (((0, 1), (31, 32)), ((34, 35),), ((32, 34),)),
    ("", "", ""),
)  # fmt: skip
SHORT = Document("", ("one", "two", "three"), (((0, 2),), ((1, 2),)), ("", ""))
INPUTS = Pairs((LONG, SHORT, LONG), torch.tensor([[0, 0, 1], [0, 2, 0], [1, 0, 1], [1, 1, 0], [2, 1, 2], [2, 0, 1]]))
ALL = torch.arange(len(INPUTS))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def hidden(encoder: PairTransformer, body: Any, inputs: Pairs, rows: Tensor) -> Tensor:
    with torch.no_grad():
        return body.eval()(*encoder.encode(inputs).batch(rows))  # type: ignore[no-any-return]


@pytest.mark.parametrize("length", [512, 10])
def test_a_pair_does_not_depend_on_the_others(path: str, length: int) -> None:
    encoder = PairTransformer.fit(INPUTS, path=path, length=length, hidden=32)
    body = encoder.make_body()
    together = hidden(encoder, body, INPUTS, ALL)
    assert together.shape == (len(INPUTS), body.width)
    torch.testing.assert_close(together[0], together[5])  # the same document under another number
    for row in ALL:
        alone = Pairs((INPUTS.documents[INPUTS.pairs[row, 0]],), INPUTS.pairs[row][None] * torch.tensor([0, 1, 1]))
        torch.testing.assert_close(hidden(encoder, body, alone, torch.tensor([0]))[0], together[row])
    rows = torch.tensor([4, 1, 4, 2])
    torch.testing.assert_close(hidden(encoder, body, INPUTS, rows), together[rows])


@pytest.mark.parametrize("length", [512, 10])
def test_mentions_begin_at_the_mark_before_them(path: str, length: int) -> None:
    """The token after the mark is that of the first word of the mention, or of the mark of one that begins there."""
    encoder = PairTransformer.fit(INPUTS, path=path, length=length)
    encoded = encoder.encode(INPUTS)
    ids, mask, flat, owner, head, tail = encoded.batch(ALL)
    assert ids.shape[1] <= length
    assert (len(ids) > 3) == (length == 10)  # a long document has several windows, each with [CLS] and [SEP]
    assert (ids[:, 0] == 2).all()
    assert (ids[mask] == 3).sum() == len(ids)
    assert owner.tolist() == [0, 0, 1, 2, 3, 4, 5, 5, 6, 7]
    assert head.tolist() == [0, 2, 3, 4, 6, 5]
    assert tail.tolist() == [1, 0, 4, 3, 7, 6]
    after = ids.flatten()[flat + 1].tolist()
    known = {word: 4 + place for place, word in enumerate(WORDS)}
    if length == 512:
        first = [
            known[word]
            for word in ("alpha", "alpha", "delta", "gamma", "one", "two", "alpha", "alpha", "delta", "gamma")
        ]
        assert after == first
    assert (ids.flatten()[flat] == 1).all()  # the mark, which the tiny tokenizer does not know


def test_pooling_is_a_log_sum_exp(path: str) -> None:
    states = 50 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    states.requires_grad_()
    owner = torch.tensor([0, 0, 0, 1, 2, 2])
    expected = torch.stack([states[owner == entity].logsumexp(0) for entity in range(3)])
    torch.testing.assert_close(pooled(states, owner), expected)
    assert torch.autograd.gradcheck(lambda z: pooled(z, owner), (states / 50).detach().requires_grad_())


def test_an_epoch_has_every_row_once_and_documents_stay_together(path: str) -> None:
    encoded = PairTransformer.fit(INPUTS, path=path).encode(INPUTS)
    orders = [encoded.order(torch.Generator().manual_seed(seed)).tolist() for seed in range(20)]
    assert all(sorted(order) == ALL.tolist() for order in orders)
    assert len(set(map(tuple, orders))) > 10
    for order in orders:
        documents = INPUTS.pairs[order, 0]
        assert len(documents.unique_consecutive()) == 3


def test_a_stored_model_needs_no_path(tmp_path: Path) -> None:
    encoder = PairTransformer.fit(INPUTS, path=write_encoder(tmp_path / "e"), hidden=16)
    body = encoder.make_body()
    values, tensors = encoder.stored()
    (tmp_path / "e").rename(tmp_path / "gone")
    again = PairTransformer.from_stored(json.loads(json.dumps(values)), tensors)
    network = again.make_body()
    network.load_state_dict(load(save(body.state_dict())))
    assert torch.equal(hidden(again, network, INPUTS, ALL), hidden(encoder, body, INPUTS, ALL))


@pytest.mark.slow
def test_it_learns_relations(path: str) -> None:
    """Of two entities, the word between them says which relation holds; the opposite pair has none."""
    generator = torch.Generator().manual_seed(0)
    documents, pairs, labels = [], [], []
    for number in range(60):
        verb = int(torch.randint(3, (), generator=generator))
        one, other = (WORDS[4 + int(torch.randint(6, (), generator=generator))] for _ in range(2))
        documents.append(Document("", (one, WORDS[verb], other), (((0, 1),), ((2, 3),)), ("", "")))
        pairs += [(number, 0, 1), (number, 1, 0)]
        labels += [[verb] if verb < 2 else [], []]
    inputs = Pairs(tuple(documents), torch.tensor(pairs))
    encoder = PairTransformer.fit(inputs, path=path, hidden=32)
    trained(encoder, inputs, SparseTargets.from_indices(labels), epochs=25, rate=0.01)


@pytest.mark.parametrize("settings", [{}, {"path": "x", "hidden": 20}, {"path": "x", "length": 3}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pair_transformer: "):
        PairTransformer.fit(INPUTS, **settings)
