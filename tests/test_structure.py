"""The package is built in layers: a module imports only from layers below its own."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sparseopt as so

ROOT = Path(__file__).parents[1]

# The lowest layer comes first. A package stands for all modules in it; "sparseopt" is sparseopt/__init__.py alone.
LAYERS = [
    {"_files", "_text", "_tokens", "_typing", "_version"},
    {"_checks", "_memory", "_tensors"},
    {"_kernels", "_reserve"},
    {"_config", "_workspace", "gradients"},
    {"init", "optimizers"},
    {"_ids", "_rows", "_samples", "embedding", "schedules"},
    {"_ratings", "checkpoint", "losses", "training"},
    {"disk", "evaluation"},
    {"_bench", "datasets", "models", "sharded", "torch"},
    {"cli", "sparseopt"},
]
MOST_COLUMNS = 120

PATHS = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
         for path in sorted((ROOT / "sparseopt").rglob("*.py*")) if path.suffix in (".py", ".pyx")}
CYTHON_IMPORT = re.compile(r"^\s*(?:from (sparseopt[\w.]*) )?c?import ([^#\n]*)", flags=re.M)


def imports(name):
    """The modules of sparseopt that a module imports, also those that only a function or a type checker imports."""
    path = PATHS[name]
    if path.suffix == ".pyx":
        sources = [path, *path.parent.glob("**/*.pxi")] if name.endswith("baseline") else [path]
        return {module for source in sources for module in cython_imports(source)}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found.update(module_of(module, alias.name) for alias in node.names)
    return {module for module in found if module.partition(".")[0] == "sparseopt"}


def cython_imports(source):
    for module, names in CYTHON_IMPORT.findall(source.read_text(encoding="utf-8")):
        for each in re.findall(r"[\w.]+", names):
            if module:
                yield module_of(module, each)
            elif each.startswith("sparseopt"):
                yield each


def module_of(module, name):
    return f"{module}.{name}" if f"{module}.{name}" in PATHS else module


GRAPH = {name: imports(name) for name in PATHS}


def room(module):
    """The name under which a module stands in LAYERS."""
    return module.split(".")[1] if "." in module else module


def test_a_module_imports_only_from_layers_below():
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    assert {room(module) for module in PATHS} == set(layer)
    for module, imported in GRAPH.items():
        for other in imported:
            assert room(other) == room(module) or layer[room(other)] < layer[room(module)], f"{module} imports {other}"


def test_the_imports_of_the_kernels_are_among_those_looked_at():
    assert {"sparseopt._memory", "sparseopt._kernels.processors"} <= GRAPH["sparseopt._kernels.baseline"]


def test_no_imports_go_round_in_a_circle():
    TopologicalSorter(GRAPH).prepare()          # raises a CycleError, which names the modules


def test_a_private_module_is_imported_only_within_its_package():
    for module, imported in GRAPH.items():
        for other in imported:
            package, _, name = other.rpartition(".")
            if name.startswith("_"):
                assert module == package or module.startswith(f"{package}."), f"{module} imports {other}"


def test_importing_the_package_does_not_import_models_data_sets_and_metrics(tmp_path):
    program = ("import sys, sparseopt as so\n"
               "assert {'datasets', 'evaluation', 'losses', 'models'} <= set(dir(so))\n"
               "print(*(name for name in sys.modules if name.startswith('sparseopt.')))\n"
               "assert so.datasets.ClickLog and so.evaluation.auc and so.models.GloVe and so.DiskTable\n"
               "assert so.models is sys.modules['sparseopt.models']\n")
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[1] for name in result.stdout.split()}
    assert {"checkpoint", "embedding", "gradients", "optimizers", "schedules", "training"} <= loaded
    assert not loaded & {"_bench", "cli", "datasets", "disk", "evaluation", "losses", "models", "sharded"}


def test_a_name_that_the_package_does_not_have_is_named():
    with pytest.raises(AttributeError, match="module 'sparseopt' has no attribute 'dataset'"):
        so.dataset  # noqa: B018


def test_every_public_name_is_there():
    for name in so.__all__:
        assert getattr(so, name) is not None
        assert name in dir(so)


@pytest.mark.parametrize("folder", ["sparseopt", "tests", "bench", "examples"])
def test_lines_of_code_have_at_most_120_columns(folder):
    for path in sorted((ROOT / folder).rglob("*.p*")):
        if path.suffix in (".py", ".pyi", ".pyx", ".pxd", ".pxi"):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                assert len(line) <= MOST_COLUMNS, f"{path.relative_to(ROOT)}, line {number}"
