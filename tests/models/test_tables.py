"""Tables are learnt whatever the scale of a column, and read by the names of columns."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lopsided.data.inputs import Table
from lopsided.models.columns import Scale
from lopsided.models.tables import LinearTable, MlpTable
from tests.models.training import error_share, logits_of

ENCODERS: tuple[Any, ...] = (MlpTable, LinearTable)


def table_of(**columns: Any) -> Table:
    """A table of columns of floats and of texts, None where a cell is empty."""
    numbers, categories, values = {}, {}, {}
    for name, cells in columns.items():
        if any(isinstance(cell, str) for cell in cells):
            values[name] = tuple(sorted({cell for cell in cells if cell is not None}))
            categories[name] = torch.tensor([-1 if cell is None else values[name].index(cell) for cell in cells])
        else:
            numbers[name] = torch.tensor([torch.nan if cell is None else float(cell) for cell in cells])
    rows = len(next(iter(columns.values())))
    return Table(
        torch.stack([*numbers.values()], 1) if numbers else torch.empty(rows, 0),
        tuple(numbers),
        torch.stack([*categories.values()], 1) if categories else torch.empty(rows, 0, dtype=torch.long),
        tuple(categories),
        tuple(values.values()),
    )


def encoded(encoder: Any, table: Table) -> tuple[Tensor, Tensor]:
    return cast("tuple[Tensor, Tensor]", encoder.encode(table).batch(torch.arange(len(table))))


def test_columns_have_mean_0_and_deviation_1_whatever_their_scale() -> None:
    torch.manual_seed(0)
    plain = torch.randn(500, 4)
    scaled = plain * torch.tensor([1e-30, 1.0, 1e6, 1e30]) + torch.tensor([0.0, -3.0, 1e8, 0.0])
    result = Scale.of(scaled)(scaled)
    torch.testing.assert_close(result.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std(0, correction=0), torch.ones(4))
    torch.testing.assert_close(result[:, 3], ((plain - plain.mean(0)) / plain.std(0, correction=0))[:, 3])


def test_one_enormous_number_leaves_the_others_different() -> None:
    torch.manual_seed(0)
    column = torch.randn(200, 1)
    column[7] = 1e30
    result = Scale.of(column)(column)[:, 0]
    others = torch.cat([result[:7], result[8:]])
    assert others.std() > 0.2
    assert others.max() < result[7] < 20


def test_far_numbers_keep_their_order_and_stay_finite() -> None:
    scale = Scale.of(torch.randn(100, 1, generator=torch.Generator().manual_seed(0)))
    far = torch.tensor([-torch.inf, -1e30, -100.0, -9.0, 0.0, 9.0, 100.0, 1e30, torch.inf])[:, None]
    result = scale(far)[:, 0]
    assert result.isfinite().all()
    assert (result.diff() >= 0).all()
    assert (result[2:7].diff() > 0).all()


@pytest.mark.parametrize("value", [0.0, 7.0, 1.7e9, -1e30])
def test_constant_columns_say_nothing_even_where_they_vary_later(value: float) -> None:
    column = torch.full((50, 1), value)
    if value:
        column[3] = column[3].nextafter(torch.tensor(torch.inf))  # of a constant that was rounded in two ways
    scale = Scale.of(column)
    assert not scale(column).any()
    assert not scale(torch.tensor([[value + 1], [value * 2], [torch.nan]])).any()


def test_an_empty_cell_becomes_the_mean_and_says_so_where_training_had_some() -> None:
    train = table_of(a=[1, 2, None, 3], b=[5, 6, 7, 8])
    numbers, _ = encoded(MlpTable.fit(train), table_of(a=[None, 2], b=[None, 6.5]))
    torch.testing.assert_close(numbers, torch.tensor([[0.0, 0, 1], [0, 0, 0]]))


def test_a_column_without_any_number_is_constant() -> None:
    train = table_of(a=[None, None], b=[1, 2])
    numbers, _ = encoded(LinearTable.fit(train), table_of(a=[4, None], b=[1, 2]))
    torch.testing.assert_close(numbers[:, [0, 2]], torch.tensor([[0.0, 0], [0, 1]]))


@pytest.mark.slow
@given(st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=6))
def test_any_numbers_become_finite(rows: list[list[float]]) -> None:
    numbers = torch.tensor(rows)
    scale = Scale.of(numbers)
    assert scale(numbers).isfinite().all()
    assert scale(numbers).shape == (len(rows), scale.width)
    assert all(tensor.isfinite().all() for tensor in vars(scale).values())


def encoder_code(encoder: MlpTable, value: str) -> int:
    return 2 + encoder.columns.values[0].index(value)


@pytest.mark.parametrize("kind", ENCODERS)
def test_columns_are_matched_by_name(kind: Any) -> None:
    columns = {"age": [1, 2, 3, 4], "city": ["Rome", "Oslo", "Rome", "Oslo"], "pay": [9, 8, 1, None]}
    encoder = kind.fit(table_of(**columns))
    turned = table_of(extra=[0, 0, 0, 0], **dict(reversed(columns.items())))
    for one, other in zip(encoded(encoder, table_of(**columns)), encoded(encoder, turned), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("kind", ENCODERS)
def test_missing_columns_are_one_error_that_names_them(kind: Any) -> None:
    encoder = kind.fit(table_of(age=[1, 2], city=["Rome", "Oslo"], pay=[1, 2]))
    with pytest.raises(
        ValueError,
        match=r"2 of the 3 columns of training are missing here: 'age', 'city'; there are 'Age', 'pay', which",
    ):
        encoder.encode(table_of(Age=[1], pay=[2]))
    many = kind.fit(Table.of_numbers(torch.randn(3, 768)))
    with pytest.raises(ValueError, match="10 numbers a row, but 768 in training"):
        many.encode(Table.of_numbers(torch.randn(3, 10)))


def test_a_table_without_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a column"):
        MlpTable.fit(Table.of_numbers(torch.empty(3, 0)))


def test_rare_and_new_values_share_a_code_and_empty_cells_have_another() -> None:
    encoder = MlpTable.fit(
        table_of(city=["Rome", "Oslo", "Rome", "Oslo", "Bonn"], pet=["cat", "cat", None, "dog", "dog"])
    )
    _, codes = encoded(
        encoder, table_of(city=["Oslo", "Rome", "Bonn", "Lima", None], pet=[None, "cat", "dog", "", "?"])
    )
    assert codes.tolist() == [[2, 4], [3, 6], [1, 7], [1, 5], [0, 5]]
    assert encoder.columns.num_codes == 8


def test_a_block_of_a_file_may_look_like_numbers_where_training_did_not() -> None:
    encoder = MlpTable.fit(table_of(size=["8", "10.50", "XL", "8", "10.50", "XL"]))
    as_texts, as_numbers = table_of(size=["8", "10.50", "3", None, "XL"]), table_of(size=[8, 10.5, 3, None])
    assert encoded(encoder, as_texts)[1].flatten().tolist()[:4] == encoded(encoder, as_numbers)[1].flatten().tolist()


def test_a_number_is_the_category_that_is_written_otherwise_if_only_one_is() -> None:
    encoder = MlpTable.fit(table_of(zip=["01", "1", "A", "3"] * 2))
    as_texts = encoded(encoder, table_of(zip=["01", "1", "3.0", "1.0", "4"]))[1].flatten().tolist()
    assert as_texts[:2] == [encoder_code(encoder, "01"), encoder_code(encoder, "1")]
    assert as_texts[2:] == [encoder_code(encoder, "3"), 1, 1]
    assert encoded(encoder, table_of(zip=[3, 1, 4]))[1].flatten().tolist() == [encoder_code(encoder, "3"), 1, 1]


def test_a_block_of_a_file_may_look_like_texts_where_training_held_numbers() -> None:
    encoder = MlpTable.fit(table_of(age=[1, 2, 3, None]))
    numbers, _ = encoded(encoder, table_of(age=["3", "1e0", None]))
    torch.testing.assert_close(numbers, encoded(encoder, table_of(age=[3, 1, None]))[0])
    with pytest.raises(ValueError, match="column 'age' held numbers in training; here it holds 'old'"):
        encoder.encode(table_of(age=["3", "old"]))


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_stored_encoder_encodes_the_same(kind: Any) -> None:
    import json

    train = table_of(age=[1, 2, None, 4], city=["Rome", "Oslo", "Rome", "Oslo"])
    for table in (train, Table.of_numbers(torch.randn(9, 3))):
        encoder = kind.fit(table)
        values, tensors = encoder.stored()
        again = kind.from_stored(json.loads(json.dumps(values)), tensors)
        for one, other in zip(encoded(encoder, table), encoded(again, table), strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)
        torch.manual_seed(0)
        body = cast("nn.Module", encoder.make_body())
        cast("nn.Module", again.make_body()).load_state_dict(body.state_dict())


@pytest.mark.parametrize("kind", ENCODERS)
def test_bodies_give_as_many_numbers_as_they_say(kind: Any) -> None:
    for table in (table_of(city=["Rome", "Oslo"]), table_of(age=[1, 2]), table_of(age=[1, 2], city=["Rome", "Oslo"])):
        encoder = kind.fit(table)
        body = encoder.make_body()
        assert body(*encoder.encode(table).batch(torch.tensor([1, 0, 1]))).shape == (3, body.width)


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"layers": 0}, {"dropout": 1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least 1 and dropout in"):
        MlpTable.fit(table_of(a=[1, 2]), **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
def test_columns_of_very_different_scale_and_categories_are_learnt(kind: Any) -> None:
    """One label hangs on a tiny column, one on a huge one, one on a category, one on whether a cell is empty."""
    rows = 1500
    draw = torch.Generator().manual_seed(0)
    numbers = torch.randn(rows, 3, generator=draw) * torch.tensor([1e-9, 1e12, 1.0])
    numbers[torch.rand(rows, generator=draw) < 0.3, 2] = torch.nan
    numbers[5, 0] = 1e30
    city = torch.randint(30, (rows, 1), generator=draw)
    table = Table(numbers, ("tiny", "huge", "often empty"), city, ("city",), (tuple(map(str, range(30))),))
    truth = torch.stack([numbers[:, 0] > 1e-9, numbers[:, 1] > 1e12, city[:, 0] % 5 == 0, numbers[:, 2].isnan()], 1)
    train, test = torch.arange(1000), torch.arange(1000, rows)
    in_steps = {"solve": False} if kind is LinearTable else {}
    scores = logits_of(kind, table.take(train), truth[train], table.take(test), **in_steps)
    assert error_share(scores, truth[test]).max() < 0.06
