"""Pairs of entities, and the documents that they stand in."""

import torch

from lopsided.data.pairs import Document, Pairs

TOKENS = ("Ada", "Lovelace", "lives", "in", "Rome", ".", *("and",) * 40, "Ada", "died", "there", ".")
DOCUMENT = Document("A life", TOKENS, (((0, 2), (46, 47)), ((4, 5),)), ("PER", "LOC"))


def test_an_excerpt_names_both_and_shows_the_nearest_mentions() -> None:
    pairs = Pairs((DOCUMENT,), torch.tensor([[0, 0, 1], [0, 1, 0]]))
    shown = pairs.excerpt(0)
    assert shown == "Ada Lovelace -> Rome: Ada Lovelace lives in Rome . " + " ".join(["and"] * 7)
    assert str(pairs.excerpt(1)).startswith("Rome -> Ada Lovelace: Ada")


def test_far_mentions_are_shown_apart() -> None:
    far = Document("", TOKENS, (((0, 1),), ((46, 47),)), ("", ""))
    shown = Pairs((far,), torch.tensor([[0, 1, 0]])).excerpt(0)
    assert str(shown).count(" ... ") == 1
    assert str(shown).endswith("Ada died there .")


def test_keys_are_those_of_words_and_places() -> None:
    copy = Document("another title", TOKENS, DOCUMENT.mentions[::-1], ("LOC", "PER"))
    other = Document("A life", (*TOKENS, "!"), DOCUMENT.mentions, DOCUMENT.types)
    pairs = Pairs((DOCUMENT, copy, other), torch.tensor([[0, 0, 1], [1, 1, 0], [0, 1, 0], [2, 0, 1]]))
    first, second, turned, longer = pairs.keys()
    assert first == second
    assert len({first, turned, longer}) == 3


def test_taken_rows_keep_the_documents() -> None:
    taken = Pairs((DOCUMENT,), torch.tensor([[0, 0, 1], [0, 1, 0]])).take(torch.tensor([1, 1]))
    assert taken.pairs.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert len(taken) == 2
    assert taken.documents == (DOCUMENT,)
