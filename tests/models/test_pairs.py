import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from lopsided.data.pairs import Document, Pairs
from lopsided.models.pair_features import pair_features
from lopsided.models.pairs import PairWords
from lopsided.nn.head import LinearHead
from lopsided.targets import SparseTargets

ADA = Document("", ("Ada", "was", "born", "in", "Rome", "."), (((0, 1),), ((4, 5),)), ("PER", "LOC"))
BUCKETS = 2**40  # so many that none is shared


def buckets(document: Document, head: int = 0, tail: int = 1) -> set[int]:
    return set(pair_features(Pairs((document,), torch.tensor([[0, head, tail]])), BUCKETS).indices.tolist())


def replaced(place: int, word: str, types: tuple[str, ...] = ("PER", "LOC")) -> Document:
    words = (*ADA.tokens[:place], word, *ADA.tokens[place + 1 :])
    return Document("", words, ADA.mentions, types)


@pytest.mark.parametrize("place", [0, 2, 4, 5], ids=["head", "between", "tail", "after"])
def test_each_word_counts(place: int) -> None:
    shared = buckets(ADA) & buckets(replaced(place, "other"))
    assert 5 < len(shared) < len(buckets(ADA))


def test_types_and_direction_count_and_titles_and_case_do_not() -> None:
    assert buckets(ADA) != buckets(replaced(0, "Ada", ("PER", "ORG")))
    assert buckets(ADA, 0, 1) != buckets(ADA, 1, 0)
    assert buckets(ADA) == buckets(replaced(2, "BORN"))
    assert buckets(ADA) == buckets(Document("a title", ADA.tokens, ADA.mentions, ADA.types))


def test_the_nearest_mentions_count() -> None:
    """Words between are those between the nearest mentions; where these are far apart, there are none."""
    far = ("Ada", *("x",) * 60, *ADA.tokens)
    apart = Document("", far, (((0, 1),), ((65, 66),)), ("PER", "LOC"))
    near = Document("", far, (((0, 1), (61, 62)), ((65, 66),)), ("PER", "LOC"))
    assert len(buckets(ADA) & buckets(near)) > len(buckets(ADA) & buckets(apart)) + 6


def test_rows_do_not_depend_on_their_order_and_kinds_have_unit_length() -> None:
    documents = (
        ADA,
        replaced(2, "buried"),
        Document("", ("A", "B", "C"), (((0, 1),), ((2, 3),), ((1, 2),)), ("", "", "")),
    )
    rows = torch.tensor([[2, 0, 1], [0, 0, 1], [2, 2, 0], [1, 1, 0], [0, 1, 0]])
    features = pair_features(Pairs(documents, rows), 2**18)
    for i in range(len(rows)):
        alone, part = pair_features(Pairs(documents, rows[i : i + 1]), 2**18), features.take(torch.tensor([i]))
        assert torch.equal(part.indices, alone.indices)
        assert torch.equal(part.values, alone.values)
    squares = features.values[: features.indptr[1]].square().sum().item()
    assert squares == pytest.approx(round(squares), abs=1e-4)  # a whole number of kinds


def invented(documents: int) -> tuple[Pairs, SparseTargets]:
    """People and cities; a verb tells which of two relations holds from the first to the second, or none does."""
    generator = torch.Generator().manual_seed(0)
    made, pairs, labels = [], [], []
    for number in range(documents):
        verb = int(torch.randint(3, (), generator=generator))
        people, city = (f"w{int(torch.randint(40, (), generator=generator))}" for _ in range(2))
        words = (people, "was", ("born", "buried", "seen")[verb], "in", city, ".")
        made.append(Document("", words, (((0, 1),), ((4, 5),)), ("PER", "LOC")))
        pairs += [(number, 0, 1), (number, 1, 0)]
        labels += [[verb] if verb < 2 else [], []]
    return Pairs(tuple(made), torch.tensor(pairs)), SparseTargets.from_indices(labels)


def trained(encoder: Any, inputs: Pairs, targets: SparseTargets, epochs: int, rate: float) -> Tensor:
    """Trains on rows in the order that the encoder wants; returns the scores."""
    torch.manual_seed(0)
    body, encoded = encoder.make_body(), encoder.encode(inputs)
    head = LinearHead(body.width, 2, "bce", prior=0.2, reduction="batchmean")
    network = nn.ModuleList([body, head]).train()
    optimizer = torch.optim.Adagrad(network.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    dense = torch.zeros(len(inputs), 2)
    dense[targets.row, targets.col] = 1
    order = getattr(encoded, "order", lambda generator: torch.randperm(len(encoded), generator=generator))
    with torch.sparse.check_sparse_tensor_invariants(False):
        for _ in range(epochs):
            for rows in order(generator).split(32):
                optimizer.zero_grad()
                head(body(*encoded.batch(rows)), dense[rows]).backward()
                optimizer.step()
        network.eval()
        with torch.no_grad():
            scores: Tensor = head.logits(body(*encoded.batch(torch.arange(len(inputs)))))
    assert ((scores > 0) == dense.bool()).double().mean() > 0.98
    return scores


def test_it_learns_relations() -> None:
    inputs, targets = invented(60)
    trained(PairWords.fit(inputs, hidden=8), inputs, targets, epochs=6, rate=0.2)


def test_only_what_two_documents_have_is_kept() -> None:
    both = Pairs((ADA, replaced(2, "unlike")), torch.tensor([[0, 0, 1], [0, 1, 0], [1, 0, 1]]))
    shared = buckets(ADA) & buckets(replaced(2, "unlike"))
    assert len(PairWords.fit(both).kept) == len(shared)
    alone = Pairs((ADA,), torch.tensor([[0, 0, 1]]))
    assert len(PairWords.fit(alone).kept) == len(buckets(ADA))


def test_a_stored_encoder_encodes_alike() -> None:
    inputs, _ = invented(20)
    encoder = PairWords.fit(inputs, hidden=4, dropout=0.1)
    values, tensors = encoder.stored()
    again = PairWords.from_stored(json.loads(json.dumps(values)), load(save(tensors)))
    rows = torch.arange(len(inputs))
    batches = zip(again.encode(inputs).batch(rows), encoder.encode(inputs).batch(rows), strict=True)
    assert all(torch.equal(one, other) for one, other in batches)
    assert again.make_body().width == 4


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"dropout": 1.0}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="hidden must be at least 1 and dropout in"):
        PairWords.fit(invented(2)[0], **settings)


@pytest.mark.slow
def test_documents_with_relations_are_learnt(shared: Path) -> None:
    """Some of the development documents: what is held out is ranked far above chance."""
    documents, pairs, truth = [], [], []
    for number, each in enumerate(json.loads((shared / "data/redocred/dev_revised.json").read_text())[:40]):
        offsets = [0]
        for sentence in each["sents"]:
            offsets.append(offsets[-1] + len(sentence))
        mentions = tuple(
            tuple((offsets[m["sent_id"]] + m["pos"][0], offsets[m["sent_id"]] + m["pos"][1]) for m in entity)
            for entity in each["vertexSet"]
        )
        words = tuple(token for sentence in each["sents"] for token in sentence)
        documents.append(Document(each["title"], words, mentions, tuple(e[0]["type"] for e in each["vertexSet"])))
        related = {(label["h"], label["t"]) for label in each["labels"] if label["r"] == "P17"}
        size = len(mentions)
        pairs += [(number, h, t) for h in range(size) for t in range(size) if h != t]
        truth += [float((h, t) in related) for h in range(size) for t in range(size) if h != t]
    inputs, targets = Pairs(tuple(documents), torch.tensor(pairs)), torch.tensor(truth)[:, None]
    held_out = inputs.pairs[:, 0] >= 30
    encoder = PairWords.fit(inputs.take((~held_out).nonzero()[:, 0]), hidden=8)
    torch.manual_seed(0)
    body, encoded = encoder.make_body(), encoder.encode(inputs)
    head = LinearHead(8, 1, "bce", prior=float(targets.mean()), reduction="batchmean")
    optimizer = torch.optim.Adagrad([*body.parameters(), *head.parameters()], lr=0.05)
    with torch.sparse.check_sparse_tensor_invariants(False):
        for rows in (~held_out).nonzero()[:, 0][torch.randperm(int((~held_out).sum()))].split(64):
            optimizer.zero_grad()
            head(body(*encoded.batch(rows)), targets[rows]).backward()
            optimizer.step()
        body.eval()
        with torch.no_grad():
            scores = head.logits(body(*encoded.batch(held_out.nonzero()[:, 0])))[:, 0]
    top = targets[held_out, 0][scores.argsort(descending=True)[:40]]
    assert top.mean() > 8 * targets[held_out].mean()
