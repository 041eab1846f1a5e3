"""The public names and their parameters change only on purpose."""

from tests.project.public_api import SNAPSHOT, public_api


def test_names_and_parameters_are_those_of_the_snapshot() -> None:
    written, actual = SNAPSHOT.read_text().splitlines(), public_api().splitlines()
    gone, new = (
        [f"{sign} {line}" for line in one if line not in other]
        for sign, one, other in (("-", written, actual), ("+", actual, written))
    )
    assert gone + new == [], "on purpose? Run `nox -s api` and tell it in the changelog"
    assert written == actual
