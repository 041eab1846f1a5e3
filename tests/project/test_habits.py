"""What stands in two places of the project says the same in both."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import lopsided

ROOT = Path(__file__).parents[2]
SETTINGS = [*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.name)
def test_settings_can_be_read(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_version_is_that_of_the_citation_and_of_the_changelog() -> None:
    assert yaml.safe_load(read("CITATION.cff"))["version"] == lopsided.__version__
    assert f"\n## [{lopsided.__version__}]" in read("CHANGELOG.md")


def test_the_oldest_torch_is_that_of_the_workflow() -> None:
    required = re.search(r'"torch>=([\d.]+)"', read("pyproject.toml"))
    assert required
    jobs: dict[str, Any] = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    assert any(f"torch=={required[1]}.0" in step.get("run", "") for step in jobs["test"]["steps"])


def test_the_oldest_python_is_that_of_the_workflow() -> None:
    required = re.search(r'requires-python = ">=([\d.]+)"', read("pyproject.toml"))
    assert required
    matrix = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]["strategy"]["matrix"]
    assert required[1] in matrix["python"]


def test_every_task_is_in_contributing() -> None:
    names = re.findall(r'^@nox\.session(?:\(name="([\w-]+)"\))?\ndef (\w+)', read("noxfile.py"), re.MULTILINE)
    tasks = {name or function for name, function in names}
    assert tasks == set(re.findall(r"^\| `([\w-]+)` \|.*\|.*\|$", read("CONTRIBUTING.md"), re.MULTILINE)) & tasks
    assert "lint" in tasks
    assert all(f"run 'nox -s {task}'" in read(".ci/run") for task in ("lint", "site"))


def test_every_tool_of_development_is_pinned() -> None:
    section = re.search(r"^dev = \[(.*?)^\]", read("pyproject.toml"), re.MULTILINE | re.DOTALL)
    assert section
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in read("constraints.txt").splitlines()}
    tools = set(re.findall(r'"([a-z][\w-]*)>=', section[1]))
    assert "pytest" in tools
    assert tools <= pinned
