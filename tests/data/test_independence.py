"""Copies and groups of rows: what is a copy, and that no split parts them."""

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from lopsided.data.dataset import Dataset
from lopsided.data.independence import (
    copies,
    number_groups,
    overlap,
    refuse_same_file,
    shared_groups,
    together,
)
from lopsided.data.inputs import Images, Inputs, Numbered, SparseFeatures, Table, Texts
from lopsided.data.split import split_rows
from lopsided.data.storage import UserError
from lopsided.targets import SparseTargets

NAN = float("nan")


def dataset(texts: Sequence[str], groups: Sequence[int] | None = None, labels: int = 3) -> Dataset:
    targets = SparseTargets.from_indices([[len(text) % labels] for text in texts])
    named = None if groups is None else torch.tensor(groups)
    return Dataset(Texts(tuple(texts)), targets, Numbered(labels), named)


def sparse(rows: Sequence[dict[int, float]]) -> SparseFeatures:
    indptr = torch.tensor([0, *map(len, rows)]).cumsum(0)
    indices = torch.tensor([index for row in rows for index in row], dtype=torch.long)
    return SparseFeatures(indptr, indices, torch.tensor([value for row in rows for value in row.values()]), 10)


def table(numbers: Sequence[Sequence[float]], codes: Sequence[int], values: tuple[str, ...]) -> Table:
    return Table(torch.tensor(numbers), ("a", "b"), torch.tensor(codes)[:, None], ("colour",), (values,))


SAME: list[tuple[Inputs, list[int]]] = [
    (Texts(("Good  day", "good day\n", "caf\u00e9", "cafe\u0301", "cafe", "", " ")), [0, 0, 1, 1, 2, 3, 3]),
    (sparse([{1: 2.0, 3: 1.0}, {3: 1.0, 1: 2.0}, {1: 2.0}, {1: 2.0, 4: 0.0}, {}, {7: -0.0}, {3: 1.0, 2: 2.0}]),
     [0, 0, 1, 1, 2, 2, 3]),
    (table([[0.0, NAN], [-0.0, NAN], [0.0, 1.0], [0.0, NAN], [0.0, NAN]], [0, 0, 0, 1, -1], ("red", "blue")),
     [0, 0, 1, 2, 3]),
    (Table.of_numbers(torch.tensor([[1.0], [2.0], [1.0]])), [0, 1, 0]),
    (Images(torch.tensor([0, 1, 0], dtype=torch.uint8).view(3, 1, 1, 1)), [0, 1, 0]),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "expected"), SAME, ids=lambda value: getattr(value, "kind", ""))
def test_copies_are_rows_with_the_same_content(inputs: Inputs, expected: list[int]) -> None:
    assert copies(inputs.keys()).tolist() == expected
    assert copies(inputs.take(torch.zeros(0, dtype=torch.long)).keys()).tolist() == []


@pytest.mark.parametrize(("inputs", "expected"), SAME, ids=lambda value: getattr(value, "kind", ""))
def test_keys_do_not_depend_on_the_rows_around(
    inputs: Inputs, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = list(inputs.keys())
    monkeypatch.setattr("lopsided.data.inputs._BLOCK", 2)
    assert list(inputs.keys()) == keys
    backwards = torch.arange(len(inputs)).flip(0)
    assert list(inputs.take(backwards).keys()) == keys[::-1]


def test_a_category_is_the_same_whatever_its_code() -> None:
    one = table([[0.0, 1.0]], [0], ("red", "blue"))
    other = table([[0.0, 1.0], [0.0, 1.0]], [0, 1], ("blue", "red"))
    assert copies([*one.keys(), *other.keys()]).tolist() == [0, 1, 0]


def test_a_row_of_a_table_is_shown_with_its_names() -> None:
    assert table([[0.25, NAN], [1e6, 2.0]], [1, -1], ("red", "blue")).excerpt(0) == "a 0.25, colour blue"
    assert Table.of_numbers(torch.zeros(1, 100)).excerpt(0).count(",") == 7


def test_overlap_names_the_rows_of_the_test_file() -> None:
    train, test, none = map(dataset, (["a", "b", "c"], ["x", "B ", "y", "a", "b"], []))
    assert overlap(train, test).tolist() == [1, 3, 4]
    assert overlap(train, none).tolist() == overlap(none, test).tolist() == []


def test_contents_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = dataset(["a", "b", "a"])
    expected = rows.hashes[1:]
    monkeypatch.delattr(Texts, "keys")
    assert torch.equal(rows.take(torch.tensor([1, 2])).hashes, expected)


def test_groups_that_share_a_copy_are_one_set() -> None:
    rows = dataset(["a", "b", "b", "c", "d", "d"], [7, 7, 8, 8, 9, 9])
    sets = together(rows).tolist()
    assert len(set(sets[:4])) == 1
    assert sets[4] == sets[5] != sets[0]


def test_a_group_has_the_same_number_in_every_file() -> None:
    one = number_groups(["ward 1", None, "ward 2", " ward 1 ", "", 7, NAN])
    other = number_groups(["", "ward 2", "7", "ward 3", ""])
    assert one[0] == one[3] != one[2]
    assert len(one.unique()) == 6, "rows without a group are each alone"
    assert (one < 0).tolist() == [False, True, False, False, True, False, True]
    train, test = (dataclasses.replace(dataset(["x"] * len(groups)), groups=groups) for groups in (one, other))
    assert shared_groups(train, test).tolist() == [1, 2]
    assert shared_groups(dataset(["x"]), test).tolist() == []


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 8)), min_size=1, max_size=20))
def test_rows_are_together_exactly_if_a_chain_of_copies_and_groups_joins_them(rows: list[tuple[str, int]]) -> None:
    sets = together(dataset([text for text, _ in rows], [group for _, group in rows])).tolist()
    joined = list(range(len(rows)))
    for _ in rows:
        for a, b in combinations(range(len(rows)), 2):
            if rows[a][0] == rows[b][0] or rows[a][1] == rows[b][1]:
                joined[a] = joined[b] = min(joined[a], joined[b])
    pairs = list(combinations(range(len(rows)), 2))
    assert [sets[a] == sets[b] for a, b in pairs] == [joined[a] == joined[b] for a, b in pairs]


@pytest.mark.parametrize("grouped", [False, True])
def test_no_copy_and_no_group_stands_in_two_parts(grouped: bool) -> None:
    """200 rows stand three times each; as in a data set that was augmented before it was split."""
    texts = [f"row {number}" for number in range(200)] * 3
    groups = [number % 200 // 2 for number in range(600)] if grouped else None
    rows = dataset(texts, groups)
    parts = [rows.take(part) for part in split_rows(rows, (0.6, 0.2, 0.2), seed=1)]
    assert [len(part) for part in parts] == [360, 120, 120]
    for one, other in combinations(parts, 2):
        assert not len(overlap(one, other))
        if one.groups is not None and other.groups is not None:
            assert not set(one.groups.tolist()) & set(other.groups.tolist())


def test_rows_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(UserError, match=r"40 rows cannot be split by 0\.8, 0\.2: .*1 sets, the largest of 40 rows"):
        split_rows(dataset(["same"] * 40), (0.8, 0.2))
    with pytest.raises(UserError, match="makes 0 sets"):
        split_rows(dataset([]), (0.8, 0.2))


def test_a_file_is_not_tested_on_itself(tmp_path: Path) -> None:
    train, copy, link, other = (tmp_path / name for name in ("train.csv", "copy.csv", "link.csv", "other.csv"))
    train.write_text("text,labels\na,x\n")
    copy.write_text("text,labels\na,x\n")
    other.write_text("text,labels\nb,x\n")
    link.symlink_to(train)
    for same in (train, tmp_path / "." / "train.csv", copy, link):
        with pytest.raises(UserError, match=r"--test: .* holds the same rows as .*train.csv"):
            refuse_same_file({"data": train, "valid": other, "test": same})
    with pytest.raises(UserError, match=r"--test: .* --valid"):
        refuse_same_file({"data": train, "valid": other, "test": other})
    refuse_same_file({"data": train, "test": other})
    refuse_same_file({"data": train, "test": tmp_path / "absent.csv"})


def test_a_folder_is_not_tested_on_itself(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    refuse_same_file({"data": tmp_path / "one", "test": tmp_path / "two"})
    with pytest.raises(UserError, match="--test"):
        refuse_same_file({"data": tmp_path / "one", "test": tmp_path / "two" / ".." / "one"})


def test_case_18(shared: Path) -> None:
    path = shared / "cases/files/18_same_file_as_test/train.jsonl"
    with pytest.raises(UserError, match="holds the same rows"):
        refuse_same_file({"data": path, "test": path})
