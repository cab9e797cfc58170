"""Type checkers find nothing in a correct program, which runs and uses every public name, and find common mistakes."""

import ast
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import typecheck

import sparseopt as so

PROGRAM = Path(__file__).with_name(typecheck.PROGRAM)
TORCH = importlib.util.find_spec("torch")


def public_names():
    """Every name that a public module lists in `__all__`, with its module."""
    for _, name, _ in pkgutil.walk_packages(so.__path__, "sparseopt."):
        if "._" in name or name.startswith("sparseopt.cli") or (name.startswith("sparseopt.torch") and not TORCH):
            continue
        yield from ((name, each) for each in getattr(importlib.import_module(name), "__all__", ()))
    yield from (("sparseopt", each) for each in so.__all__)


def names_used(tree):
    """The public names that a program uses, as pairs (module, name), with the names that it gives to modules."""
    modules, used = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used.add(tuple(node.module.rpartition(".")[::2]))
            for alias in node.names:
                used.add((node.module, alias.name))
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            head, _, rest = ast.unparse(node.value).partition(".")
            used.add((".".join(filter(None, [modules.get(head, head), rest])), node.attr))
    return used


def test_the_typed_program_uses_every_public_name():
    public = {(module, name): getattr(importlib.import_module(module), name) for module, name in public_names()}
    used = names_used(ast.parse(PROGRAM.read_text(encoding="utf-8")))
    things = [thing for place, thing in public.items() if place in used]        # a thing may be in two modules
    assert len(public) > 60
    assert not [place for place, thing in public.items() if not any(thing is other for other in things)]


def test_the_typed_program_hides_nothing_from_the_checkers():
    text = PROGRAM.read_text(encoding="utf-8")
    assert "type: ignore" not in text
    assert "pyright:" not in text
    assert "Any" not in text.partition('"""\n')[2]


def test_the_typed_program_runs(tmp_path):
    command = [sys.executable, "-W", "error", str(PROGRAM), *(["torch"] if TORCH else [])]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("check", ["pyright", "verifytypes"])       # mypy and stubtest take too long for each run
def test_a_type_checker_finds_what_it_should(check):
    if typecheck.missing():
        pytest.skip(f"type checks need {', '.join(typecheck.missing())}: pip install 'sparseopt[dev,torch]'")
    passed, said = typecheck.run(check)
    assert passed, said
