"""`lopsided losses`."""

from pathlib import Path

import pytest

from lopsided.__main__ import main
from lopsided.losses import BALANCED, CATALOG, PRESETS, SOURCES, UNKNOWN


def test_lists_every_loss_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["losses"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in CATALOG:
        assert any(line.strip().startswith(name) and line.rstrip().endswith(SOURCES[name]) for line in lines), name
    assert all(any(line.strip().startswith(name) for line in lines) for name in PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CATALOG, *PRESETS, "apl(alphas=(0.5, 1), betas=(0,))", "hill(gamma=0)"])
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_explains_and_draws(name: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / f"plot.{suffix}"
    assert main(["losses", name, "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    assert "source: " in said
    assert "decision threshold (logit): " in said
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert plot.read_bytes().startswith(starts[suffix])


def test_a_page_draws_any_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "losses.html"
    assert main(["losses", "--plot", str(page)]) == 0
    assert f"picture: {page}" in capsys.readouterr().out
    names = [*CATALOG, *UNKNOWN, *BALANCED]
    assert [name for name in names if f"\n  {name}: {{..." not in page.read_text()] == []
    assert main(["losses", "db(gamma=0)", "--plot", str(page)]) == 0
    assert 'data-start="#loss=db&amp;alpha=0.1&amp;' in page.read_text()


def test_says_what_scores_mean(capsys: pytest.CaptureFixture[str]) -> None:
    main(["losses", "asl"])
    said = capsys.readouterr().out
    assert "decision threshold (logit): 1.379" in said
    assert "label probabilities from .000 to .942" in said
    main(["losses", "asl(clip=0.5)"])
    assert "decision threshold (logit): saturates" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "unknown loss 'nonsense'"),
        (["asl(gamma_neg=-1)"], "gamma_neg must be in [0, inf), got -1"),
        (["asl(gamma_neg=None)"], "gamma_neg must be a number, got None"),
        (["--plot", "asl.png"], "--plot needs a loss"),
        (["asl", "--plot", "asl.jpg"], "asl.jpg: a plot must end in .png, .svg, .pdf"),
        (["db", "--plot", "db.png"], "depends on label counts, which a page has sliders for: --plot losses.html"),
        (["asl", "--plot", "."], "a plot must end in"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["losses", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
