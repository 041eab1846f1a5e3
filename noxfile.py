"""The tasks of a developer. `nox -l` lists them; `nox -s lint` runs one, in the environment that is active."""

from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "test-fast"]
nox.needs_version = ">=2025.2"

LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
    ("clang-format", "--dry-run", "-Werror", *map(str, sorted(Path("csrc").glob("*.[ch]")))),
)


PAGES = ("pages", "docs", "readme", "examples", "benchmarks", "study")  # the tests of what is written


@nox.session
def test(session: nox.Session) -> None:
    """All tests, as the README says; arguments after `--` go to pytest."""
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(name="test-fast")
def test_fast(session: nox.Session) -> None:
    """The tests that are not marked slow: under a minute on two cores."""
    session.run("pytest", "-n", "auto", "-m", "not slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Everything that looks at the code without running it."""
    for command in LINTERS:
        session.run(*command)


@nox.session
def coverage(session: nox.Session) -> None:
    """All tests, and the lines of Python that none of them runs; fails below the floor in pyproject.toml."""
    session.run("pytest", "-n", "auto", "--cov", "--cov-report=term-missing:skip-covered", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Draws the plots of the pages of losses, writes the tables from the measured files, and runs every example."""
    for picture in sorted(Path("docs/losses").glob("*.png")):
        session.run("lopsided", "losses", picture.stem, "--plot", str(picture))
    session.run("python", "benchmarks/tables.py")
    session.run("python", "studies/which_loss/pages.py")
    session.run("pytest", "-n", "auto", *(f"tests/test_{name}.py" for name in PAGES))


@nox.session
def site(session: nox.Session) -> None:
    """Builds the site of the docs in build/site, begin at docs/index.html; a warning is a failure."""
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-c", "docs", ".", "build/site")


@nox.session
def links(session: nox.Session) -> None:
    """Asks for every link of the pages that leads out of the project; build/links/output.txt has the answers."""
    session.run("sphinx-build", "-q", "-b", "linkcheck", "-c", "docs", ".", "build/links", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Times the losses on a machine that does nothing else, a quarter of an hour; writes the tables of speed."""
    session.run("python", "benchmarks/run.py", *session.posargs)
    session.run("python", "benchmarks/tables.py")


@nox.session(name="print")
def print_curves(session: nox.Session) -> None:
    """Prints the curves to C and to Triton, and builds the C library."""
    session.run("python", "-m", "lopsided.compute.native.printer")
    session.run("python", "-m", "lopsided.compute.triton.printer")
    session.run("python", "setup.py", "-q", "build_ext", "--inplace")


@nox.session
def api(session: nox.Session) -> None:
    """Writes the snapshot of the public names and signatures."""
    session.run("python", "-m", "tests.project.public_api")


@nox.session
def sanitize(session: nox.Session) -> None:
    """The C library under the address and undefined-behaviour sanitizers. Linux, gcc."""
    session.run("scripts/sanitize.sh", *session.posargs, external=True)
