"""Every setting of a configuration is an option of its command, with the words and the default that stand there."""

import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

from lopsided.cli import app
from lopsided.data.options import ReadOptions
from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.config import Config, FitConfig

DEFAULTS = {
    "compare": {
        "losses": "bce,focal,asl,apl,zlpr",
        "seeds": "3; 5 with --resplit; 1 of solved models",
        "images": "1500",
        "missing": "0",
        "epochs": "depends on the data",
    },
    "fit": {
        "loss": "asl",
        "model": "depends on the data",
        "learning_rate": "depends on the data",
        "accumulate": "1",
        "schedule": "depends on the model",
        "at_least_one": "no",
    },
}


OF_COMMANDS = {"compare": ["out", "changes"], "fit": ["out", "like", "changes"]}


def options_of(name: str) -> dict[str, Any]:
    commands: Any = get_command(app)
    return {each.name: each for each in commands.commands[name].params if each.param_type_name == "option"}


@pytest.mark.parametrize(("name", "kind"), [("compare", CompareConfig), ("fit", FitConfig)])
def test_options_are_the_settings(name: str, kind: type[Config]) -> None:
    options = options_of(name)
    assert set(options) - {*OF_COMMANDS[name], "help"} == set(kind.model_fields) - {"data"}
    for setting, field in kind.model_fields.items():
        if setting != "data":
            assert options[setting].help == field.description
            assert options[setting].default is None, "a run folder must tell what was asked anew"
    assert {setting: options[setting].show_default for setting in DEFAULTS[name]} == DEFAULTS[name]


def test_help_and_errors_of_usage_need_no_heavy_library() -> None:
    """It counts modules, since time differs from machine to machine."""
    program = """
import sys
from lopsided.__main__ import main
assert [main(each) for each in (["--version"], ["--help"], ["fit", "--help"], ["compare", "--bogus"])] == [0, 0, 0, 2]
heavy = ("torch", "numpy", "scipy", "sklearn", "pyarrow", "optuna", "matplotlib", "accelerate", "transformers")
assert not (found := set(heavy) & set(sys.modules)), found
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)


def test_public_names_are_imported_when_they_are_used() -> None:
    program = """
import sys, lopsided
assert "torch" not in sys.modules
assert lopsided.losses.formula("asl") == lopsided.loss("asl").formula  # a room, and a function of another
assert set(lopsided.__all__) <= set(dir(lopsided))
assert all(getattr(lopsided, name) is not None for name in lopsided.__all__)
try:
    lopsided.lost
except AttributeError as error:
    assert "no attribute 'lost'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["compare", "fit"])
def test_help_lists_how_files_are_read_apart_and_last(name: str) -> None:
    panels = {option: each.rich_help_panel for option, each in options_of(name).items() if option != "help"}
    of_files = [option for option, panel in panels.items() if panel == "Reading of files"]
    assert of_files == list(ReadOptions.model_fields) == list(panels)[-len(of_files) :]
    assert [option for option, panel in panels.items() if panel is None] == OF_COMMANDS[name]


def test_help_tells_the_shares_that_are_split_off() -> None:
    for part in ("valid", "test"):
        shares = [kind.model_construct().default_shares[part] for kind in (FitConfig, CompareConfig)]
        assert options_of("fit")[part].show_default == "{:g}, or {:g} in compare".format(*shares)
