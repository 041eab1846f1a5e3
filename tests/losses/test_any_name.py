"""Names of losses, whatever their settings are."""

import inspect
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lopsided.losses import CATALOG, PRESETS, Formula, formula
from lopsided.losses.names import read, split_specs, with_settings

WHOLE = st.integers(-3, 9)
NUMBERS = WHOLE | st.floats(-3, 9).map(lambda x: x + 0.0) | st.sampled_from([0.05, 1e-8, 0.5, 1e300])  # no -0.0


def settings_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some settings of that loss, of the types of their defaults, most of which it takes."""
    parameters = inspect.signature(CATALOG[name]).parameters.values()
    values = {p.name: st.booleans() if isinstance(p.default, bool) else NUMBERS for p in parameters}
    return st.fixed_dictionaries({}, optional=values)


@pytest.mark.slow
@given(st.data(), st.sampled_from(sorted(CATALOG)))
def test_a_formula_is_made_again_from_what_it_prints(data: st.DataObject, name: str) -> None:
    settings = data.draw(settings_of(name))
    try:
        made = formula(name, **settings)
    except (ValueError, TypeError):
        assume(False)
    assert formula(str(made)) == made
    assert str(formula(str(made))) == str(made)
    assert formula(with_settings(name, settings)) == made
    assert hash(formula(str(made))) == hash(made)


@given(st.text(max_size=30) | st.text(alphabet="asl(gamma_neg=2.,) -e+", max_size=30))
def test_any_text_is_a_formula_or_an_error_of_one_line(text: str) -> None:
    try:
        assert isinstance(formula(text), Formula)
    except ValueError as error:
        message = str(error)
    else:
        return
    assert message
    assert "\n" not in message


@given(st.lists(st.sampled_from([*CATALOG, *PRESETS, "asl(gamma_neg=2, clip=0)", "apl(alphas=(1, 2))"]), max_size=5))
def test_a_list_of_names_is_split_into_them(names: list[str]) -> None:
    assert split_specs(",".join(names)) == split_specs(" , ".join(names)) == tuple(names)
    for name in names:
        assert read(f" {name} ") == read(name)
