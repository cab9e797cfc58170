"""Examples run: the README's, those in docs/, and every docstring's."""

import ast
import doctest
import importlib
import os
import pkgutil
import re
import shlex
from pathlib import Path
from types import ModuleType

import prose
import pytest

import sparseopt as so
from sparseopt import _kernels, cli

ROOT = Path(__file__).parents[1]
SUPPORTED = _kernels.available
MODULES = [name for _, name, _ in pkgutil.walk_packages(so.__path__, "sparseopt.")
           if name.rpartition(".")[2] not in ("avx2", "avx512") or name.rpartition(".")[2] in SUPPORTED]
OTHER_LIBRARIES = {"implicit", "lightfm", "optuna", "spacy"}     # shown beside ours; no extra installs them
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = sorted((ROOT / "bench" / "results").glob("*.txt"))


@pytest.mark.parametrize("name", ["sparseopt", *MODULES])
def test_the_examples_of_docstrings_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, missing = {}, set()
    for example in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
        try:
            exec(compile(example, page.name, "exec"), names)
        except ModuleNotFoundError as error:
            if error.name not in OTHER_LIBRARIES:
                raise
            missing.add(error.name)
    if missing:
        pytest.skip(f"an example needs {', '.join(sorted(missing))}; all others of the page have run")


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


def test_the_readme_shows_what_its_example_prints(capsys):
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    example, output = re.search(r"^```python\n(.*?)^```\s+```text\n(.*?)^```", page, flags=re.M | re.S).groups()
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out == output


def test_every_figure_of_a_table_in_performance_was_printed_by_a_command():
    figure = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")
    results = "\n".join(path.read_text(encoding="utf-8") for path in RESULTS)
    printed = {number.replace(",", "") for number in figure.findall(results)}
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*", page, flags=re.M)
    shown = {number.replace(",", "") for row in rows for number in figure.findall(row)}
    assert len(shown) > 80
    assert not shown - printed


def test_results_name_their_commands_and_the_processor():
    assert RESULTS
    for path in RESULTS:
        text = path.read_text(encoding="utf-8")
        assert re.search(r"^# Processor: \w", text, flags=re.M), path.name
        assert re.search(r"^# printed on \d{4}-\d\d-\d\d\n\$ ", text, flags=re.M), path.name
        assert text.count("# printed on") == len(re.findall(r"^\$ ", text, flags=re.M)), path.name


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


def test_the_commands_of_pages_are_commands(monkeypatch):
    blocks = [block for page in PAGES
              for block in re.findall(r"```(?:sh|text)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)]
    said = [line for text in [*blocks, *(path.read_text(encoding="utf-8") for path in RESULTS)]
            for line in re.findall(r"^(?:\$ )?sparseopt (.*)", text, flags=re.M)]
    assert len(said) > 20
    monkeypatch.setattr(Path, "exists", lambda path: True)          # the files are examples
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    for line in said:
        cli._parser().parse_args([word for word in shlex.split(line, comments=True) if word != "--help"])


def test_everything_public_has_a_docstring_with_an_example():
    for name in so.__all__:
        thing = getattr(so, name)
        assert thing.__doc__, name
        if callable(thing) and thing is not so.Optimizer:
            assert ">>>" in thing.__doc__ or "Examples" in thing.__doc__, name


def test_the_reference_has_every_public_name():
    listed = set()
    for page in sorted((ROOT / "docs" / "api").glob("*.rst")):
        module = None
        for line in page.read_text(encoding="utf-8").splitlines():
            module = line.removeprefix(".. currentmodule:: ") if line.startswith(".. currentmodule::") else module
            if module and re.fullmatch(r"   \w+", line):
                listed.add(f"{module}.{line.strip()}")
    modules = [importlib.import_module(name) for name in ["sparseopt", *MODULES]
               if not re.search(r"\._|\.cli", name)]
    public = {f"{module.__name__}.{name}": getattr(module, name) for module in modules
              for name in getattr(module, "__all__", ())}
    assert listed <= set(public)
    shown = {id(public[name]) for name in listed}
    assert not [name for name, thing in public.items() if not isinstance(thing, ModuleType) and id(thing) not in shown]


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_to_headings_lead_to_a_heading():
    def anchors(page):
        headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), flags=re.M)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]*)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert anchor in anchors(page.parent / target if target else page), f"{page.name}: {target}#{anchor}"


def test_the_words_of_readme_and_docs_are_plain():
    assert not prose.faults()


@pytest.mark.parametrize(("text", "words"), [
    ("One. Two three! Four?", [1, 2, 1]),
    ("Adagrad, e.g. on rare words. See Kingma et al. 2015, i.e. the paper.", [5, 8]),
    ("It costs 2.5 µs. torch takes 3.", [4, 3]),
    ("Call `so.load(path). Then go on` first. Then step.", [3, 2]),
    ("See [the guide. It is long](guide.md#what-it-is) now.", [3, 4]),
    ("By D. Kingma, doi:10.1000/x.y. (Read it.) It ends here ... but not there.", [4, 2, 6]),
    ("A `code span\nover two lines` and\na *bold end.* Next", [6, 1]),
    ("[Tables](#tables) · [Gradients](#gradients)", []),
    ("×, ÷. -", []),
])
def test_sentences_are_split_and_counted_sensibly(text, words):
    found = prose.sentences_of(list(enumerate(text.splitlines(), 1)))
    assert [sentence.words for sentence in found] == words


def test_a_sentence_knows_its_line():
    found = prose.sentences_of([(7, "- One `a"), (8, "  b` two. Three"), (9, "  four. Five.")], "page.md")
    places = [(sentence.line, sentence.text) for sentence in found]
    assert places == [(7, "One `a b` two."), (8, "Three four."), (9, "Five.")]
    assert str(found[1]) == "page.md:8: 2 words: Three four."


def test_prose_is_what_is_not_code_table_comment_or_heading():
    page = """# A heading. Of two
A paragraph
of two lines.
<!-- a comment.
goes on. --> | a table. |
| a. | b. |
```python
code. Code
```
- an item
  goes on
* another
1. third

The end."""
    paragraphs = prose.paragraphs_of_markdown(page)
    assert [[number for number, _ in lines] for lines in paragraphs] == [[2, 3], [10, 11], [12], [13], [15]]


def test_prose_of_code_is_docstrings_and_comments():
    source = '''"""The module. Two."""
import os       # the trailing comment
# A comment
# of two lines.

cdef extern from *:
    """
    int C_code(void);
    """

def f(x: int) -> str:
    """Do it.

    .. math:: x. y.
              z.

    Parameters
    ----------
    x : int
        A number. Not a name.

    Examples
    --------
    >>> f(1)
    'an output. Of this'
    """
    return "a string. No prose."
'''
    said = [sentence.text for lines in prose.paragraphs_of_code(source) for sentence in prose.sentences_of(lines)]
    assert said == ["The module.", "Two.", "the trailing comment", "A comment of two lines.", "Do it.", "A number.",
                    "Not a name."]


@pytest.mark.parametrize("fault", ["wide", "long", "wide table"])
def test_wide_lines_and_too_many_long_sentences_are_faults(tmp_path, monkeypatch, fault):
    def paragraphs(words):
        return "\n\n".join(["word\n" * words] * 6)

    text = {"wide": "a" * 101, "long": paragraphs(31), "wide table": f"```text\n{'a' * 101}\n```"}
    (tmp_path / "README.md").write_text(f"Some words.\n\n{text[fault]}\n")
    (tmp_path / "CONTRIBUTING.md").write_text(f"{paragraphs(30)}\n\n| {'a' * 101} |\n")
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    assert len(prose.faults()) == (6 if fault == "long" else 1)
    assert prose.main([]) == 1
    (tmp_path / "README.md").write_text("Some words.\n")
    assert prose.faults() == []
    assert prose.main([]) == 0


def test_the_core_imports_numpy_and_scipy_alone():
    allowed = {"numpy", "scipy", "sparseopt", *__import__("sys").stdlib_module_names}
    package = Path(so.__file__).parent
    extras = {"benchmark.py", "peers.py"}
    for path in package.rglob("*.py"):
        inside = set(path.relative_to(package).parts)
        if path.name in extras or "cli" in inside:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # An extra is imported where it is used, and type checkers know typing_extensions without the package.
        elsewhere = {inner for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
                     or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
                     for inner in ast.walk(node)}
        for node in set(ast.walk(tree)) - elsewhere:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert {name.partition(".")[0] for name in names} <= allowed | inside & {"torch"}, path
