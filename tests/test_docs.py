"""Examples run: the README's, those in docs/, and every docstring's."""

import ast
import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import sparseopt as so
from sparseopt import _kernels, cli

ROOT = Path(__file__).parents[1]
SUPPORTED = _kernels.available
MODULES = [name for _, name, _ in pkgutil.walk_packages(so.__path__, "sparseopt.")
           if name.rpartition(".")[2] not in ("avx2", "avx512") or name.rpartition(".")[2] in SUPPORTED]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", ["sparseopt", *MODULES])
def test_the_examples_of_docstrings_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for example in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
        exec(compile(example, page.name, "exec"), names)


def test_pages_are_finished_and_their_figures_are_those_of_a_run(capsys):
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"@@|TODO|FIXME", text), page.name
        for example in re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S):
            said = re.findall(r"# (row: -1, global: -3\.16)", example)
            if said:
                capsys.readouterr()
                exec(compile("import numpy as np\nimport sparseopt as so\n" + example, page.name, "exec"), {})
                printed = [float(x) for x in re.findall(r"-[\d.]+", capsys.readouterr().out)]
                assert printed == pytest.approx([-1, -3.162], abs=1e-3)


def test_the_model_in_forty_lines_is_one_and_learns(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "own-loop.md").read_text(encoding="utf-8")
    example = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)[0]
    assert len(example.splitlines()) < 40
    exec(compile(example, "own-loop.md", "exec"), {})
    first, last = map(float, re.search(r"loss ([\d.]+) → ([\d.]+)", capsys.readouterr().out).groups())
    assert last < 0.75 * first


def test_the_recipe_declares_a_rule_as_the_rules_are_declared():
    page = (ROOT / "docs" / "adding-an-optimizer.md").read_text(encoding="utf-8")
    shape = re.compile(r"cdef void \w+\(real\* restrict w, const real\* restrict g(?:,\s*real\* restrict \w+)*,"
                       r"\s*const real\* at, const real\* h, Py_ssize_t n\) noexcept nogil:")
    assert len(shape.findall(page)) == page.count("cdef void") == 1
    for path in (ROOT / "sparseopt" / "_kernels" / "rules").glob("*.pxi"):
        text = path.read_text(encoding="utf-8")
        assert len(shape.findall(text)) == text.count("cdef void "), path.name


def test_the_commands_of_pages_are_commands():
    said = [line for page in PAGES for line in re.findall(r"^\$ sparseopt (.*)", page.read_text(encoding="utf-8"), flags=re.M)]
    assert len(said) > 5
    for line in said:
        cli._parser().parse_args(shlex.split(line))


def test_everything_public_has_a_docstring_with_an_example():
    for name in so.__all__:
        thing = getattr(so, name)
        assert thing.__doc__, name
        if callable(thing) and thing is not so.Optimizer:
            assert ">>>" in thing.__doc__ or "Examples" in thing.__doc__, name


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_core_imports_numpy_and_scipy_alone():
    allowed = {"numpy", "scipy", "sparseopt", *__import__("sys").stdlib_module_names}
    package = Path(so.__file__).parent
    extras = {"benchmark.py", "peers.py"}
    for path in package.rglob("*.py"):
        if path.name in extras or {"integrations", "cli"} & set(path.parts):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        in_functions = {inner for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
        for node in set(ast.walk(tree)) - in_functions:         # an extra is imported where it is used
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert {name.partition(".")[0] for name in names} <= allowed, path
