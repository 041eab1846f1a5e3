"""Label-wise attention, against its definition, and on a task that a mean of all tokens cannot tell."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")

import lopsided.models.label_attention as room
from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Texts
from lopsided.losses import CATALOG, formula
from lopsided.models.heads import make_head
from lopsided.models.label_attention import LabelAttention, StatesOf, TokenStates
from lopsided.models.methods import parse_method
from lopsided.models.model import Model
from lopsided.models.transformers import Transformer
from lopsided.targets import SparseTargets
from tests.models.tiny import WORDS, write_encoder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def drawn_attention(labels: int = 5) -> LabelAttention:
    torch.manual_seed(0)
    attention = LabelAttention(4, labels)
    nn.init.normal_(attention.queries)
    nn.init.normal_(attention.linear.bias)
    return attention


def by_definition(attention: LabelAttention, states: Tensor) -> Tensor:
    """Scores of one text without padding, (T, width), label by label, from the means that the paper writes."""
    scores = []
    for query, weight, bias in zip(attention.queries, attention.linear.weight, attention.linear.bias, strict=True):
        shares = [torch.exp(query @ state) for state in states]
        mean = sum(share * state for share, state in zip(shares, states, strict=True)) / sum(shares)
        scores.append(weight @ mean + bias)
    return torch.stack(scores)


def padded(*texts: Tensor) -> StatesOf:
    """Fills up with what no score may depend on."""
    longest = max(map(len, texts))
    mask = torch.arange(longest) < torch.tensor([len(text) for text in texts])[:, None]
    states = torch.full((*mask.shape, texts[0].shape[1]), 9.0)
    states[mask] = torch.cat(texts)
    return StatesOf(states, mask)


def test_each_label_has_a_mean_of_its_own() -> None:
    attention = drawn_attention()
    texts = torch.randn(3, 4), torch.randn(1, 4), torch.randn(7, 4)
    expected = torch.stack([by_definition(attention, text) for text in texts])
    torch.testing.assert_close(attention(padded(*texts)), expected)


def test_chunks_of_labels_change_nothing_and_bound_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, hidden = drawn_attention(50), StatesOf(torch.randn(8, 16, 4), torch.ones(8, 16, dtype=torch.bool))
    hidden.states.requires_grad_()
    parameters = (hidden.states, *attention.parameters())

    def evaluated() -> tuple[Tensor, list[Tensor], int]:
        held: dict[int, int] = {}

        def hold(tensor: Tensor) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            scores = attention(hidden)
        return scores, [*torch.autograd.grad(scores.square().sum(), parameters)], max(held.values())

    whole, gradients, most = evaluated()
    monkeypatch.setattr(room, "_ENTRIES", 3 * hidden.mask.numel())  # the last chunk has two labels
    chunked, same, fewer = evaluated()
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(same, gradients)
    assert most >= 50 * hidden.mask.numel() > 512 >= fewer, "weights of all labels and tokens, and of none"


@pytest.mark.parametrize("name", [*CATALOG, "db", "asl(threshold_logit=0)", "powerset"])
def test_every_loss_takes_it(name: str) -> None:
    torch.manual_seed(0)
    truth, hidden = SparseTargets.from_indices([[0], [1, 2], []]), padded(*torch.randn(3, 6, 4))
    method, counts = parse_method(name), torch.tensor([2.0, 5.0, 3.0])
    head = make_head(method, TokenStates(4), truth, counts, 10, None)
    module, before = cast("nn.Module", head), head(hidden, truth)
    before.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in module.parameters())
    with torch.no_grad():
        for weight in module.parameters():
            weight.sub_(1e-3 * cast("Tensor", weight.grad))
    assert head(hidden, truth) < before
    values, labels = head.predict_topk(hidden, 2)
    torch.testing.assert_close(values, head.logits(hidden).topk(2).values)
    assert labels.shape == (3, 2)


def first_words(rows: int, seed: int) -> tuple[Texts, Tensor]:
    """Texts that all have the same ten words; the label of a text is the word that it begins with."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(WORDS), generator=generator) for _ in range(rows)]
    texts = Texts(tuple(" ".join(WORDS[word] for word in order) for order in orders))
    return texts, torch.stack([order[0] for order in orders])


def share_found(path: str, pooling: str) -> float:
    (train, truth), (test, wanted) = first_words(300, 0), first_words(200, 1)
    encoder = Transformer.fit(train, path=path, pooling=pooling)
    torch.manual_seed(0)
    body, encoded = cast("Any", encoder.make_body()), encoder.encode(train)
    targets = SparseTargets.from_indices(truth[:, None].tolist())
    head = make_head(formula("bce"), body, targets, torch.ones(len(WORDS)), 10, None)
    optimizer = torch.optim.AdamW([*body.parameters(), *cast("nn.Module", head).parameters()], 0.03)
    batch = encoded.batch(torch.arange(len(train)))
    for _ in range(100):
        optimizer.zero_grad()
        head(body(*batch), targets).backward()
        optimizer.step()
    with torch.no_grad():
        first = head.predict_topk(body(*encoder.encode(test).batch(torch.arange(len(test)))), 1)[1]
    return float((first[:, 0] == wanted).double().mean())


@pytest.mark.slow
def test_it_learns_what_a_mean_of_all_tokens_hardly_tells(path: str) -> None:
    assert share_found(path, "labels") > 0.95
    assert share_found(path, "mean") < 0.7


@pytest.mark.parametrize("freeze", [True, False])
def test_a_stored_model_scores_the_same(path: str, freeze: bool, tmp_path: Path) -> None:
    texts, truth = first_words(6, 0)
    encoder = Transformer.fit(texts, path=path, pooling="labels", freeze=freeze)
    targets = SparseTargets.from_indices(truth[:, None].tolist())
    model = Model.new(encoder, "asl", Dataset(texts, targets, tuple(WORDS)))
    nn.init.normal_(model.network.get_parameter("head.linear.queries"))
    again = Model.from_stored(*model.stored())
    expected = model.score(model.encode(texts))
    torch.testing.assert_close(again.score(again.encode(texts)).values, expected.values)
    rows = [model.score(model.encode(texts.take(torch.tensor([row])))).values for row in range(6)]
    torch.testing.assert_close(torch.cat(rows), expected.values)
