"""Documents with relations, and F1 and Ign-F1 counted from them as they are written, fact by fact."""

from __future__ import annotations

import random
from typing import Any

NAMES = ("alpha", "beta", "gamma", "delta", "one two", "three")
Submission = set[tuple[int, int, int, str]]  # document, head, tail, relation


def make_documents(count: int, seed: int, entities: int = 4) -> list[dict[str, Any]]:
    """Makes documents whose entities have one or two names of a few, so that facts recur; relations follow names."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        sentences: list[list[str]] = []
        vertices = []
        for _ in range(entities):
            mentions = []
            for name in draw.sample(NAMES, draw.choice([1, 1, 2])):
                words = ["five", *name.split(), "six"]
                mentions.append({"name": name, "sent_id": len(sentences), "pos": [1, len(words) - 1], "type": "X"})
                sentences.append(words)
            vertices.append(mentions)
        pairs = [(h, t) for h in range(entities) for t in range(entities) if h != t]
        labels = [
            {"h": h, "t": t, "r": relation, "evidence": []}
            for h, t in pairs
            for relation, chance in (("P1", 0.1 + 0.6 * (vertices[h][0]["name"] == "alpha")), ("P2", 0.15))
            if draw.random() < chance
        ]
        made.append({"title": f"{seed} {number}", "sents": sentences, "vertexSet": vertices, "labels": labels})
    return made


def facts(document: dict[str, Any], label: dict[str, Any]) -> set[tuple[str, str, str]]:
    heads, tails = (document["vertexSet"][label[end]] for end in "ht")
    return {(one["name"], other["name"], label["r"]) for one in heads for other in tails}


def official(train: list[dict[str, Any]], test: list[dict[str, Any]], said: Submission) -> tuple[float, float]:
    """Returns F1 and Ign-F1, counted one relation at a time."""
    known = {fact for document in train for label in document["labels"] for fact in facts(document, label)}
    true = {(n, each["h"], each["t"], each["r"]) for n, document in enumerate(test) for each in document["labels"]}
    right = said & true
    again = {one for one in right if facts(test[one[0]], dict(zip("htr", one[1:], strict=True))) & known}
    recall = len(right) / len(true)
    values = []
    for left_out in (0, len(again)):
        precision = (len(right) - left_out) / max(1, len(said) - left_out)
        values.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return values[0], values[1]
