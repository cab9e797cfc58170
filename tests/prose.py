"""How plain the words are: long sentences and wide lines of README.md, CONTRIBUTING.md and docs/*.md.

    python tests/prose.py           # exits with 1 if a bound is broken
    python tests/prose.py --code    # the same counts for docstrings and comments of sparseopt/; these have no bound
"""

import io
import re
import sys
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LONG, TOO_LONG = 25, 30                     # words of a sentence
MOST_TOO_LONG = 5                           # sentences of all pages together
WIDTH = 100                                 # columns of a line of prose, and of README's code blocks
POOR_BEGINNINGS = ("Of", "What", "Where")

ABBREVIATIONS = {"e.g.", "i.e.", "cf.", "vs.", "al.", "fig.", "eq.", "sec.", "no.", "p.", "pp.", "ca.", "approx.",
                 "resp.", "dr.", "mr.", "mrs.", "st."}
OPENING, CLOSING = "*_([{\"'“‘«", "*_)]}\"'”’»"
ITEM = re.compile(r"^(?:[-*+]|\d+[.)])\s+")
SECTIONS_OF_NAMES = {"Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns"}


class Sentence(NamedTuple):
    path: str
    line: int
    text: str
    words: int

    def __str__(self):
        return f"{self.path}:{self.line}: {self.words} words: {self.text}"


def sentences_of(lines, path=""):
    """The sentences of a paragraph, whose lines are pairs (line number, text).

    A code span is one word, and what stands in it ends no sentence. A link counts as its text.
    """
    text = ITEM.sub("", "\n".join(line.strip() for _, line in lines), count=1)
    text = re.sub(r"(`+).+?\1", lambda span: span[0].replace(" ", "\0").replace("\n", "\1"), text, flags=re.S)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    links = re.compile(r"\[([^\]]*)\]\([^)]*\)")
    if not re.search(r"\w", links.sub("", text)):                       # links alone: a table of contents
        return []
    text = links.sub(r"\1", text)
    words = list(re.finditer(r"[^ \t\n]+", text))
    sentences, begin = [], 0
    for i, word in enumerate(words):
        last = i + 1 == len(words)
        if last or _ends_a_sentence(word[0], following=words[i + 1][0]):
            said = [w[0].replace("\0", " ").replace("\1", " ") for w in words[begin:i + 1]]
            line = lines[0][0] + len(re.findall(r"[\n\1]", text[:words[begin].start()]))
            sentences.append(Sentence(path, line, " ".join(said), sum(bool(re.search(r"\w", w)) for w in said)))
            begin = i + 1
    return [sentence for sentence in sentences if sentence.words]


def _ends_a_sentence(word, following):
    bare = word.rstrip(CLOSING).lstrip(OPENING)
    if bare.lower() in ABBREVIATIONS or re.fullmatch(r"[A-Z]\.", bare):                 # or an initial
        return False
    if bare.endswith(("...", "…", "etc.")):
        return not following.lstrip(OPENING)[:1].islower()
    return bare.endswith((".", "!", "?"))


def paragraphs_of_markdown(text):
    """Paragraphs and list items as lists of (line number, text): no code blocks, tables, comments or headings."""
    paragraphs, fence, in_comment = [[]], "", False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        opening = re.match(r"`{3,}|~{3,}", bare)
        if fence:
            fence = "" if bare.startswith(fence) else fence
        elif opening:
            fence = opening[0]
            paragraphs.append([])
        elif in_comment or bare.startswith("<!--"):
            in_comment = "-->" not in bare
            paragraphs.append([])
        elif not bare or bare.startswith(("|", "#")):
            paragraphs.append([])
        else:
            if ITEM.match(bare):
                paragraphs.append([])
            paragraphs[-1].append((number, line))
    return [paragraph for paragraph in paragraphs if paragraph]


def paragraphs_of_docstring(text, first=1):
    """The same of a docstring in numpydoc's manner: no examples, directives, indented code or names of parameters."""
    paragraphs, section, skip, before = [[]], "", None, 0
    lines = text.expandtabs().splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    lines = [line.strip() if i == 0 else line[margin:] for i, line in enumerate(lines)]
    for i, line in enumerate(lines):
        bare, indent = line.strip(), len(line) - len(line.lstrip())
        underline = lines[i + 1].strip() if i + 1 < len(lines) else ""
        if (skip == "example" and not bare) or (isinstance(skip, int) and bare and indent <= skip):
            skip = None
        if skip is not None:
            continue
        if indent != before:
            paragraphs.append([])
        before = indent
        if not bare or set(bare) == {"-"}:
            paragraphs.append([])
        elif set(underline) == {"-"}:
            section = bare
        elif bare.startswith(">>>"):
            skip = "example"
        elif bare.startswith(".. "):
            skip = indent
            paragraphs.append([])
        elif bool(section in SECTIONS_OF_NAMES) == bool(indent):        # elsewhere what is indented is code
            paragraphs[-1].append((first + i, line))
    return [paragraph for paragraph in paragraphs if paragraph]


def paragraphs_of_code(text):
    """Docstrings and comments of Python or Cython, as above."""
    paragraphs, comment, previous, statement, before = [], [], None, [], []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            whole_line = not token.line[:token.start[1]].strip()
            said = token.string.lstrip("#: ")
            if not (whole_line and comment and previous == token.start[0] - 1) or not said:
                comment = []
                paragraphs.append(comment)
            if said and not token.string.startswith("#!"):
                comment.append((token.start[0], said))
            previous = token.start[0] if whole_line else None
        elif token.type == tokenize.NEWLINE:
            before, statement = statement, []
        elif token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING):
            quoted = token.string.lstrip("rR")
            if not statement and quoted.startswith('"""') and "extern" not in before:   # Cython keeps C in the latter
                paragraphs += paragraphs_of_docstring(quoted[3:-3], token.start[0])
            statement.append(token.string)
    return [paragraph for paragraph in paragraphs if paragraph]


def pages():
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def code():
    return [path for kind in ("*.py", "*.pyx", "*.pxi") for path in sorted((ROOT / "sparseopt").rglob(kind))]


def sentences(paths):
    found = []
    for path in paths:
        read = paragraphs_of_markdown if path.suffix == ".md" else paragraphs_of_code
        name = str(path.relative_to(ROOT))
        found += [each for lines in read(path.read_text(encoding="utf-8")) for each in sentences_of(lines, name)]
    return found


def wide_lines(paths):
    """What is wider than it may be, as text: lines of prose, and lines of README's code blocks."""
    wide = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        lines = [line for paragraph in paragraphs_of_markdown(text) for line in paragraph]
        if path.name == "README.md":
            blocks = re.finditer(r"^```.*?^```", text, flags=re.M | re.S)
            lines += [(text[:block.start()].count("\n") + 1 + i, line)
                      for block in blocks for i, line in enumerate(block[0].splitlines())]
        name = path.relative_to(ROOT)
        wide += [f"{name}:{number}: {len(line)} columns" for number, line in lines if len(line) > WIDTH]
    return wide


def faults():
    """The bounds that README and docs break, as text."""
    too_long = [str(sentence) for sentence in sentences(pages()) if sentence.words > TOO_LONG]
    return (too_long if len(too_long) > MOST_TOO_LONG else []) + wide_lines(pages())


def report(name, found):
    found = sorted(found, key=lambda sentence: -sentence.words)
    too_long, long = (sum(sentence.words > bound for sentence in found) for bound in (TOO_LONG, LONG))
    print(f"{name}: {len(found)} sentences, {too_long} of more than {TOO_LONG} words, {long} of more than {LONG}; "
          "the longest:")
    for sentence in found[:max(long, 1)]:
        print(f"  {sentence}")
    poor = [sentence for sentence in found if sentence.text.lstrip(OPENING).split()[0] in POOR_BEGINNINGS]
    print(f"{name}: {len(poor)} sentences begin with {', '.join(POOR_BEGINNINGS[:-1])} or {POOR_BEGINNINGS[-1]}")
    for sentence in poor:
        print(f"  {sentence}")


def main(arguments):
    if arguments not in ([], ["--code"]):
        sys.exit(__doc__)
    report("README and docs", sentences(pages()))
    wide = wide_lines(pages())
    print(f"README and docs: {len(wide)} lines of more than {WIDTH} columns", *wide, sep="\n  ")
    if arguments:
        report("docstrings and comments", sentences(code()))
    return 1 if faults() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
