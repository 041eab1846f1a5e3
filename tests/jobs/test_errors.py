"""What goes wrong is said in one line, and loses nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lopsided.__main__ import _from_here, main
from lopsided.data.storage import write_tensors
from tests.tools import TINY, command, read_results, scores_of, write_texts

DIVERGES = "apl(epsilon_pos=1e300, monotone=False)"


def test_paths_below_the_working_directory_are_told_from_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "rows.csv").write_text("body,tags\na b c,x\nd e f,y\n")
    assert main(["fit", "rows.csv"]) == 2
    assert capsys.readouterr().err.startswith("lopsided: rows.csv: no column ")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert main(["fit", "../rows.csv"]) == 2
    assert capsys.readouterr().err.startswith("lopsided: ../rows.csv: no column ")
    message = f"{folder / 'below'}, x{folder}/below/a.csv, {folder / 'below' / 'a.csv'}"
    assert _from_here(message) == f"{folder / 'below'}, x{folder}/below/a.csv, a.csv"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_is_one_line(folder: Path, number: int, status: int) -> None:
    # a process started in the background, as the tests themselves may be, ignores the signal unless told otherwise
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from lopsided.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    line = [sys.executable, "-u", "-c", code, "compare", *TINY, "--epochs", "1000000", "--out", "run"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "run folder: run" in process.stdout.readline()
            process.send_signal(number)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == status
    assert errors == "stopped; go on with: lopsided compare run\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "none.jsonl"], "none.jsonl: no such file"),
        (["compare", "empty.jsonl"], "empty.jsonl: no rows"),
        (["compare", "bad.jsonl"], "bad.jsonl, line 3: "),
        (["compare", "texts.jsonl", "--label-column", "tags"], "no column 'tags' among 'text', 'labels'"),
        (["compare", "texts.jsonl", "--label-column", "labls"], "did you mean 'labels'?"),
        (["compare", "texts.jsonl", "--images", "100"], "--images is for digits-grid"),
        (["compare", "."], "; nor is it a run folder, which has a config.json"),
        (["compare", "--losses", "bce,als"], "unknown loss 'als': did you mean 'ral' or 'atl' or 'asl'?"),
        (
            ["compare", "--losses", "bcee,bce,asll"],
            "'bcee': did you mean 'bce'?; unknown loss 'asll': did you mean 'asl'?",
        ),
        (["compare", "--losses", "bce"], "at least two losses, got bce: lopsided fit trains it"),
        (["compare", "--losses", "bce,bce"], "the same loss twice"),
        (["compare", "--losses", "bce,asl(clip=2)"], "clip must be in [0, 1), got 2"),
        (["compare", "--reference", "hill"], "the reference 'hill' is not among"),
        (["compare", "--metric", "macro_f2"], "did you mean 'macro_f1'?"),
        (["compare", "--epochs", "many"], "'--epochs'"),
        (["compare", "--epochs", "0"], "--epochs: must be greater than or equal to 1, got 0"),
        (["compare", "--missing", "1"], "--missing: must be less than 1, got 1"),
        (["compare", "--valid", "texts.jsonl"], "--valid is for files"),
        (["compare", "--out", "texts.jsonl/run", *TINY], "texts.jsonl/run"),
        (["compare", "x" * 300], "File name too long"),
        (["compare", "--data-seed", "4294967296"], "--data-seed: must be less than 4294967296, got 4294967296"),
        (["compare", "--batch-size", "1" + "0" * 23], "--batch-size"),
        (["compare", "--images", "1000000000000"], "--images"),
        (["compare", "--losses", "bce,zlpr#[/x]"], "cannot read the loss 'zlpr#[/x]'"),
        (["data", "preview", "digits-grid", "--out", "."], "Is a directory"),
        (["compare", "--colour"], "No such option: --colour"),
        (["compere"], "No such command 'compere'"),
        (["compare", "--images", "60", "--out", "texts.jsonl"], "is not a run folder"),
        (["compare", "--learning-rate", "nan"], "--learning-rate: must be less than or equal to 1000000, got nan"),
        (["compare", "texts.jsonl", "--learning-rate", "1"], "--learning-rate is for models that are trained in steps"),
        (["compare", "--budget", "soon"], "--budget: a time such as 90s, 2m or 1h; got soon"),
        (["compare", "--budget", "0s"], "--budget: a time such as 90s, 2m or 1h, above 0; got 0s"),
        (["compare", "texts.jsonl", "--budget", "2m"], "--budget is for models that are trained in steps, and ngrams"),
        (["compare", "texts.jsonl", "--seeds", "2"], 'or choose --model "ngrams(solve=False)"'),
        (
            ["fit", "texts.jsonl", "--loss", "asl(threshold_logit=0)"],
            "threshold_logit=0, is for models that",
        ),
        (["fit", "texts.jsonl", "--loss", "wan(weight=0.1..1)"], "which moves with the epochs, is for models that"),
        (["fit", "texts.jsonl", "--loss", "aml"], "aml, whose slope jumps, is for models that are trained in steps"),
        (["fit", "texts.jsonl", "--loss", "asl(threshold_logit=3)"], "write threshold_logit=0, got 3"),
        (["fit", "texts.jsonl", "--loss", "lsep(threshold_logit=0)"], "lsep compares labels with each other alone"),
        (["data", "preview", "texts.jsonl"], "only digits-grid"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_texts(folder / "texts.jsonl")
    (folder / "empty.jsonl").touch()
    (folder / "bad.jsonl").write_text('{"text": "a", "labels": ["x"]}\n\n{"text": "b", "labels": ["y"]\n')
    before = sorted(folder.rglob("*"))
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_errors_of_the_installed_command(folder: Path) -> None:
    result = command(["compare", "none.jsonl"], env=os.environ | {"PYTHONWARNINGS": "error"})
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "lopsided: none.jsonl: no such file\n"


@pytest.mark.slow
def test_a_diverging_loss_does_not_stop_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = "bce,apl(epsilon_pos=1e300, monotone=False),asl"
    assert main(["compare", *TINY[:6], "--seeds", "2", "--losses", losses, "--out", "run"]) == 0
    assert "apl(epsilon_pos=1e300, monotone=False), seed 0: diverged" in capsys.readouterr().out
    results = read_results(folder / "run")
    lost = results["comparisons"]["apl(epsilon_pos=1e300, monotone=False)"]
    assert (lost["mean"], lost["p_holm"], lost["verdict"]) == (None, None, "cannot be tested")
    assert results["losses"]["apl(epsilon_pos=1e300, monotone=False)"]["metrics"]["map"]["mean"] is None
    assert results["comparisons"]["asl"]["low"] is not None
    assert any("diverged in 2 of 2 trainings" in note for note in results["notes"])
    assert main(["compare", "run"]) == 0, "a diverged run is not trained again"
    assert "seed 1: diverged, trained before" in capsys.readouterr().out


@pytest.mark.slow
def test_a_loss_that_saturates_is_decided_at_the_tuned_threshold(folder: Path) -> None:
    losses = "bce,asl(clip=0.6)"
    assert main(["compare", "--images", "300", "--epochs", "1", "--seeds", "1", "--losses", losses, "--out", "r"]) == 0
    results = read_results(folder / "r")
    metrics = results["losses"]["asl(clip=0.6)"]["metrics"]
    assert results["losses"]["asl(clip=0.6)"]["own_threshold"] is None
    assert metrics["micro_f1_own"]["mean"] == metrics["micro_f1"]["mean"] > 0
    assert any("asl(clip=0.6), which saturates" in note for note in results["notes"])


@pytest.mark.parametrize("schema", [None, 2, 4])
def test_a_folder_of_another_version_is_named(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str], schema: int | None
) -> None:
    shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("runs"))
    stored = json.loads((finished / "config.json").read_text()) | {"lopsided": "9.9", "schema": schema}
    if schema is None:
        del stored["schema"]
    (folder / "run/config.json").write_text(json.dumps(stored))
    for name in ("compare", "report", "inspect"):
        assert main([name, "run"]) == 2
        error = f"run: written by another version of lopsided (schema {schema or 'none'}, this reads 3): run it again"
        assert capsys.readouterr().err == f"lopsided: {error}, or use lopsided 9.9\n"


def test_a_damaged_field_is_named(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("runs"))
    results = read_results(finished)
    results["losses"]["asl"]["seconds"] = "long"
    (folder / "run/results.json").write_text(json.dumps(results))
    assert main(["report", "run"]) == 2
    assert "run/results.json: damaged (field losses.asl.seconds: must be" in capsys.readouterr().err


@pytest.mark.slow
def test_texts_that_diverge(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_texts(folder / "texts.jsonl")
    line = ["compare", "texts.jsonl", "--epochs", "2", "--out", "run"]
    assert main([*line, "--losses", f"bce,{DIVERGES}"]) == 0
    assert read_results(folder / "run")["comparisons"][DIVERGES]["verdict"] == "cannot be tested"
    (run,) = (folder / "run/runs").glob("1-*seed0")
    assert json.loads((run / "training.json").read_text())["diverged"]
    assert not (run / "model.json").exists()
    assert main(["predict", str(run), "texts.jsonl", "--out", "out.jsonl"]) == 2
    assert "training diverged, so there is no model" in capsys.readouterr().err


def test_a_run_folder_fixes_settings_and_data(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(finished), "--seeds", "5"]) == 2
    assert "leave out --seeds" in capsys.readouterr().err
    assert main(["compare", *TINY[:-2], "--losses", "bce,focal", "--out", str(finished)]) == 2
    assert "other settings (losses)" in capsys.readouterr().err
    texts = write_texts(folder / "texts.jsonl")
    assert main(["compare", "texts.jsonl", "--losses", "bce,asl", "--seeds", "1", "--epochs", "1", "--out", "run"]) == 0
    with texts.open("a") as file:
        file.write('{"text": "one more", "labels": ["food"]}\n')
    assert main(["compare", "run"]) == 2
    assert "texts.jsonl: changed since the run in run began" in capsys.readouterr().err


DAMAGE: dict[str, tuple[str, bytes]] = {
    "half a record": ("training.json", b"{"),
    "an empty record": ("training.json", b"{}"),
    "a list": ("training.json", b"[]"),
    "no history": ("history.csv", b""),
    "a line without numbers": ("history.csv", b"epoch,train_loss,seconds\n1,,\n"),
    "a line too few": ("history.csv", b"epoch,train_loss,seconds\n1,0.5,1\n"),
    "no scores": ("scores-test.safetensors", b""),
    "half the scores": ("scores-tuning.safetensors", b"\x08\0\0\0\0\0\0\0{}      "),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_named(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    shutil.copytree(finished, folder / "run")
    file, content = DAMAGE[name]
    path = folder / "run/runs/0-bce-seed0"
    (path / file).write_bytes(content)
    assert main(["compare", "run"]) == 2
    errors = capsys.readouterr().err
    assert f"0-bce-seed0/{file}: damaged (" in errors
    assert errors.count("\n") == 1
    run = "run/runs/0-bce-seed0"
    assert errors.endswith(f"; delete {run}/training.json, then train it again with: lopsided fit {run}\n")


def test_the_advice_for_a_damaged_run_helps(finished: Path, folder: Path) -> None:
    shutil.copytree(finished, folder / "run")
    path = folder / "run/runs/0-bce-seed0"
    for file, content in DAMAGE.values():
        (path / file).write_bytes(content)
    (path / "training.json").unlink()
    assert main(["fit", "run/runs/0-bce-seed0"]) == 0
    assert main(["compare", "run"]) == 0
    assert torch.equal(scores_of(path), scores_of(finished / "runs/0-bce-seed0"))


@pytest.mark.slow
def test_hashes_of_rows_that_are_none_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_texts(folder / "texts.jsonl", 60)
    assert main(["fit", "texts.jsonl", "--out", "run", "--epochs", "1"]) == 0
    for hashes in (torch.tensor([True]), torch.zeros(3), torch.zeros((2, 2), dtype=torch.long)):
        write_tensors(folder / "run/seen-rows.safetensors", {"hashes": hashes})
        assert main(["evaluate", "run", "texts.jsonl"]) == 2
        assert "run/seen-rows.safetensors: damaged (hashes are torch." in capsys.readouterr().err


def test_a_damaged_configuration_is_named(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, folder / "run")
    stored = json.loads((finished / "config.json").read_text())
    stored["config"]["losses"] = ["bce", "nothing"]
    (folder / "run/config.json").write_text(json.dumps(stored))
    assert main(["compare", "run"]) == 2
    assert "unknown loss 'nothing'" in capsys.readouterr().err
    stored["config"]["losses"] = json.loads((finished / "config.json").read_text())["config"]["losses"]
    (folder / "run/config.json").write_text(json.dumps(stored | {"lopsided": "0.0.1"}))
    assert main(["compare", "run"]) == 0, "what is finished can be read"
    (folder / "run/results.json").unlink()
    assert main(["compare", "run"]) == 2
    assert "begun with lopsided 0.0.1, this is" in capsys.readouterr().err
    (folder / "run/config.json").write_text('{"model_type": "bert"}')
    assert main(["compare", "run"]) == 2
    assert "; nor is it a run folder, which has a config.json" in capsys.readouterr().err


@pytest.mark.slow
def test_without_the_tool_extra_the_message_is_clear() -> None:
    code = "import sys; sys.modules['typer'] = None; from lopsided.__main__ import main; sys.exit(main([]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "lopsided: typer is missing; install it with: pip install 'lopsided[tool]'\n"


@pytest.mark.slow
def test_the_library_needs_torch_alone() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import lopsided; lopsided.AsymmetricLoss()\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = set(sys.stdlib_module_names) | {"lopsided", "torch"}
    assert set(json.loads(result.stdout.replace("'", '"'))) <= allowed
    assert torch.__version__


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_within_code_from_a_text_keeps_its_exit_code(folder: Path, number: signal.Signals, status: int) -> None:
    """Data classes and named tuples are made of such code, as a module is imported."""
    program = (
        "import signal, sys; import lopsided.__main__ as program\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"program._run = lambda arguments: exec('import signal; signal.raise_signal({int(number)})')\n"
        "sys.exit(program.main([]))\n"
    )
    (folder / "stopped.py").write_text(program)
    line = [sys.executable, "-m", "stopped"]  # as `python -m lopsided`: of a script Python does not look at it
    done = subprocess.run(line, capture_output=True, text=True, timeout=15, check=False)
    assert (done.returncode, done.stderr) == (status, "stopped\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_within_a_callback_is_one_line(number: signal.Signals, status: int) -> None:
    """Python reports what comes up in the finalizer of an object, and goes on."""
    program = (
        "import signal, sys, time; import lopsided.__main__ as program\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Timer(program.Timer):\n"
        "    def start(self):\n"
        "        super().start()\n"
        "        time.sleep(0.1)\n"  # as on a busy machine, where it may already be over then
        "program.Timer = Timer\n"
        "class Closed:\n"
        "    def __del__(self):\n"
        f"        signal.raise_signal({int(number)})\n"
        "def run(arguments):\n"
        "    closed = Closed()\n"
        "    del closed\n"
        "    time.sleep(20)\n"
        "    return 0\n"
        "program._run = run\n"
        "sys.exit(program.main([]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=15, check=False)
    assert (done.returncode, done.stderr) == (status, "stopped\n")
