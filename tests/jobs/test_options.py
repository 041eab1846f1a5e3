"""Every setting of a configuration is an option of its command, with the words and the default that stand there."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from typer.main import get_command

from lopsided.__main__ import main
from lopsided.cli import app
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.data.options import ReadOptions
from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.config import Config, FitConfig
from lopsided.jobs.run_header import SCHEMA

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
        "learning_rate": "depends on the data; the best of a ladder in compare",
        "accumulate": "1",
        "schedule": "depends on the model",
        "at_least_one": "no",
    },
}


OF_COMMANDS = {"compare": ["out", "changes"], "fit": ["out", "like", "changes"]}


def options_of(name: str) -> dict[str, Any]:
    commands: Any = get_command(app)
    command = commands.commands[name].completed()
    return {each.name: each for each in command.params if each.param_type_name == "option"}


@pytest.mark.parametrize(("name", "kind"), [("compare", CompareConfig), ("fit", FitConfig)])
def test_options_are_the_settings(name: str, kind: type[Config]) -> None:
    options = options_of(name)
    assert set(options) - {*OF_COMMANDS[name], "help"} == set(kind.model_fields) - {"data"}
    for setting, field in kind.model_fields.items():
        if setting != "data":
            assert options[setting].help == field.description
            assert options[setting].default is None, "a run folder must tell what was asked anew"
    assert {setting: options[setting].show_default for setting in DEFAULTS[name]} == DEFAULTS[name]


def commands_of(group: Any, above: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        yield f"{above}{name}"
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{above}{name} ")


# the options of both whose values are of a fixed list
ONE_OF_SOME = [
    name.replace("_", "-")
    for name, field in Config.model_fields.items()
    if any(get_origin(kind) is Literal for kind in (field.annotation, *get_args(field.annotation)))
]
HELP = ("--version", "--help", *(f"{name} --help" for name in commands_of(get_command(app))))
WRONG = (
    "compere",
    "compare --bogus",
    "compare --epochs many",
    "compare --epochs 0",
    "compare none.jsonl",
    "compare --losses bce,als",
    "compare --losses bce,asl(clip=2)",
    "compare --metric macro_f2",
    "compare --reference asll",
    "compare --tune many",
    "compare --budget soon",
    "compare --bins few",
    *(f"{command} digits-grid --{option} wrong" for command in ("compare", "fit") for option in ONE_OF_SOME),
    "fit digits-grid --metric WRONG",
    "compare --set epoch=3",
    "fit",
    "fit none.toml",
    "fit none.jsonl --loss asl --labels-file none.txt",
    "fit --like none",
    "fit digits-grid --model ngram",
    "fit digits-grid --model bag(wrong=3)",
    "fit digits-grid --decide best",
    "fit digits-grid --decide own --loss lsep",
    "verdict a.npz b.npz --truth y.npz",
    "verdict a.npz b.npz --truth y.npz --metric wrong",
    "verdict a.npz b.npz --truth y.npz --scale wrong",
    "verdict a.npz b.npz --truth y.npz --metric micro_f1",
    "verdict a.npz --truth y.npz",
    "verdict a.csv b.csv --truth a.csv --reference wrong",
    "evaluate none",
    "predict none rows.jsonl --out -",
    "predict run - --out out.xlsx",
    "inspect none",
    "inspect run --top 5",
    "inspect run none.jsonl --missing",
    "report none none",
    "export none --out model.onnx",
    "export run --out model.pt",
    "serve none",
    "losses asll",
    "losses asl --plot asl.txt",
    "losses cb --plot cb.png",
    "check wrong",
    "check none.py:MyLoss",
    "check none.py:MyLoss --plot own.txt",
    "data check none.csv",
)


@pytest.mark.slow
def test_help_and_errors_of_usage_need_no_heavy_library(tmp_path: Path) -> None:
    """It counts modules, since time differs from machine to machine: Python alone has 70, and torch 1,500."""
    program = f"""
import os, sys
from lopsided.__main__ import main
codes = [main(each.split()) for each in {(*HELP, *WRONG)}]
assert codes == {[0] * len(HELP) + [2] * len(WRONG)}, codes
assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE", "set before torch is loaded, which reads it once"
heavy = ("torch", "numpy", "scipy", "sklearn", "pyarrow", "optuna", "matplotlib", "accelerate", "transformers")
assert not (found := set(heavy) & set(sys.modules)), found
assert len(sys.modules) < 600, len(sys.modules)
print(len(sys.modules), file=sys.stderr)
"""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps({"schema": SCHEMA, "lopsided": "0", "command": "fit"}))
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("lopsided: ") == len(WRONG), "each in one line"


def test_public_names_are_imported_when_they_are_used() -> None:
    fresh: Any = importlib.util.module_from_spec(spec := importlib.util.find_spec("lopsided"))  # type: ignore[arg-type]
    spec.loader.exec_module(fresh)  # type: ignore[union-attr]
    assert not {"loss", "losses", "AsymmetricLoss"} & set(vars(fresh))
    assert set(fresh.__all__) <= set(dir(fresh))
    assert fresh.losses.formula("asl") == fresh.loss("asl").formula  # a room, and a function of another
    assert all(getattr(fresh, name) is not None for name in fresh.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lost'"):
        _ = fresh.lost


LIGHT = {
    "fit made/train.txt --out run --epochs 2": {"scipy.stats", "sklearn", "torch.distributed.tensor"},
    "predict run made/test.txt --out labels.jsonl": {"accelerate", "scipy", "sklearn"},
    "evaluate run made/test.txt": {"accelerate", "jinja2", "scipy.stats", "sklearn"},
    "inspect run": {"accelerate", "jinja2", "scipy.stats", "sklearn"},
    "losses": {"accelerate", "scipy", "sklearn"},
}
NOWHERE = {"matplotlib", "optuna", "pandas", "sympy", "torch._dynamo", "transformers"}


@pytest.mark.slow
@pytest.mark.parametrize("line", LIGHT)
def test_sparse_rows_need_few_libraries(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of these take a second each, and the compiler of torch as long as torch itself."""
    monkeypatch.chdir(tmp_path)
    make_xmc(tmp_path / "made", XmcMaker(20, 30), rows=100, test_rows=20)
    if not line.startswith("fit"):
        model = "tree" if line.startswith("predict") else "linear_bag"
        assert main(["fit", "made/train.txt", "--out", "run", "--epochs", "1", "--model", model]) == 0
    program = f"""
import sys
from lopsided.__main__ import main
assert main({line.split()}) == 0
print(*sorted(set({sorted(NOWHERE | LIGHT[line])}) & set(sys.modules)), file=sys.stderr)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stderr.splitlines()[-1] == ""


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
