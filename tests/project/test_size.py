"""The longest file has 400 lines and the longest function 40; files that are printed are exempt."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "benchmarks", "studies", "scripts", "examples", "csrc")
PRINTED = {"csrc/curves.inc", "src/lopsided/compute/triton/curves.py"}
FILE, FUNCTION = 400, 40


def sources() -> dict[str, str]:
    """The text of every file of code that a person wrote, by its name below the root."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".c", ".h"}]
    names = {path.relative_to(ROOT).as_posix(): path for path in [*paths, *ROOT.glob("*.py")]}
    return {name: path.read_text(encoding="utf-8") for name, path in sorted(names.items()) if name not in PRINTED}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All that stand in a node, at any depth, but no expressions, of which there are ten times as many."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for each in getattr(node, field, ()):
            yield each
            yield from statements(each)


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """The name of each function and the number of lines of its body: without decorators, signature and docstring."""
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield node.name, (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """The first line of each function and its number of lines; the braces stand where clang-format puts them."""
    for match in re.finditer(r"^(?![#{} /])[^;{}\n][^;{}]*\) \{\n.*?^\}$", text, re.MULTILINE | re.DOTALL):
        text = match.group().lstrip("\n")
        yield text.partition("\n")[0], text.count("\n") + 1


def long_ones() -> Iterator[str]:
    for name, text in sources().items():
        if (lines := len(text.splitlines())) > FILE:
            yield f"{name}: {lines} lines, at most {FILE}"
        functions = python_functions if name.endswith(".py") else c_functions
        for function, lines in functions(text):
            if lines > FUNCTION:
                yield f"{name}: {function}: {lines} lines, at most {FUNCTION}"


def test_files_and_functions_are_short() -> None:
    assert list(long_ones()) == []


def test_the_lines_are_counted() -> None:
    text = 'def f():\n    """One.\n\n    Two."""\n    return 1\n\n\nclass A:\n    @b\n    def g(self):\n        ...\n'
    assert list(python_functions(text)) == [("f", 1), ("g", 1)]
    text = "// f\nstatic int f(int a,\n             int b) {\n  return a;\n}\n\ntypedef struct {\n  int a;\n} A;\n"
    assert [lines for _, lines in c_functions(text)] == [4]
    assert len(list(c_functions(sources()["csrc/lopsided.c"]))) >= 6
