"""Text of files and callers is shown as text: it does not steer a terminal, and no error is longer than a screen."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparseopt as so
from sparseopt import cli, datasets
from sparseopt._text import escaped, listed, shown
from sparseopt.models import ImplicitFactorization, LogisticRegression

STEERING = "\x1b[2J\x1b]0;title\x07\r\n\x9b31m\u202e\u2066\u200b[bold red]:smile:[/]"
ESCAPED = r"\x1b[2J\x1b]0;title\x07\r\n\x9b31m\u202e\u2066\u200b[bold red]:smile:[/]"


class Huge:
    def __repr__(self):
        return "huge\n\x1b[2J" * 100_000


class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")


def test_what_steers_a_terminal_is_escaped_and_the_rest_stays():
    assert escaped("Amélie 東京 'a' \\ 🎬" + STEERING) == "Amélie 東京 'a' \\ 🎬" + ESCAPED
    assert shown(STEERING, most=200) == f"'{ESCAPED}'"


@pytest.mark.parametrize("value", [
    "a" * 10**6, b"\x00" * 10**6, STEERING * 10**4, list(range(10**5)), np.ones((500, 500)), Huge(), Broken(), 10**5000,
    {"a" * 1000: Huge()}, "\ud800" * 100,
], ids=lambda value: type(value).__name__)
def test_any_value_is_shown_on_one_short_line(value):
    for most in (10, 80):
        text = shown(value, most)
        assert len(text) <= max(most, len("<a Broken without a repr>") if most == 80 else most)
        assert text.isprintable()


def test_values_that_are_short_are_shown_as_repr_has_them():
    for value in ("a", "a'b", 1, 1.5, None, [1, "b"], np.float32(1), (1,), {"a": 1}, b"x", "a" * 70):
        assert shown(value) == repr(value)
    assert listed(["a", 2]) == "'a', 2"
    names = [f"table {i}" for i in range(10_000)]
    assert listed(names).startswith("'table 0', 'table 1', ")
    assert listed(names).endswith(", ... (10000 in all)")
    assert len(listed(names)) < 250
    assert len(listed(["a" * 10**6] * 3)) < 250


LONG = "\x1b[2J" * 10**5
X = sp.csr_array(np.eye(3, dtype=np.float32))


@pytest.mark.parametrize("call", [
    lambda: so.SGD(so.zeros(3), lr=LONG),
    lambda: so.Adam(so.zeros(3), betas=[0.9] * 10**5),
    lambda: so.schedules.Step(0.1, every=LONG),
    lambda: so.schedules.Chain([LONG, LONG]),
    lambda: so.training.EarlyStopping(so.SGD(so.zeros(3), lr=0.1), mode=LONG),
    lambda: so.training.EarlyStopping(so.SGD(so.zeros(3), lr=0.1)).step(LONG),
    lambda: so.embedding.bags([0], n_rows=1, mode=LONG),
    lambda: so.embedding.gather(so.zeros(3), [0], opt=so.SGD({f"table {i}": so.zeros(1) for i in range(3000)}, lr=0.1)),
    lambda: ImplicitFactorization(loss=LONG).fit(X),
    lambda: ImplicitFactorization(optimizer=LONG).fit(X),
    lambda: ImplicitFactorization(epochs=LONG).fit(X),
    lambda: ImplicitFactorization(negatives=LONG).fit(X),
    lambda: ImplicitFactorization().set_params(**{LONG: 1}),
    lambda: ImplicitFactorization(dim=2, epochs=1).fit(X).recommend(0, n=LONG),
    lambda: LogisticRegression(random_state=LONG).fit(X, [0, 1, 1]),
    lambda: LogisticRegression().fit(X, [LONG] * 3),
    lambda: LogisticRegression(class_weight={LONG: 1}).fit(X, [0, 1, 1]),
    lambda: LogisticRegression().fit(X, [LONG, LONG + "b", "c"]).partial_fit(X, [LONG, "b", "c"]),
    lambda: LogisticRegression().partial_fit(X, ["b", "c", LONG], classes=["a", "b"]),
    lambda: so.evaluation.evaluate(None, X, X, k=LONG),
    lambda: so.evaluation.log_loss([LONG], [0.5]),
    lambda: datasets.read_clicks("x", file_format=LONG),
])
def test_errors_quote_values_on_one_short_line(call):
    with pytest.raises((TypeError, ValueError)) as raised:
        call()
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize(("name", "text", "how"), [
    ("a.csv", f'"{LONG}",b\n1,2\n', {"label": "nothing"}),
    ("b.csv", ",".join(map(str, range(10**5))) + "\n", {"label": "nothing"}),
    ("c.csv", f'"{LONG}",b\n"{LONG}",2\n', {}),
    ("d.csv", "a,b\n1,2\n", {"label": LONG}),
    ("e.svm", f"{LONG}\n", {}),
    ("f.svm", f"1 0:{'9' * 10**6}x\n", {}),
    ("g.svm", f"{'9' * 10**6}x 1:1\n", {}),
])
def test_errors_quote_files_on_one_short_line(name, text, how, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=name) as raised:
        list(datasets.read_clicks(tmp_path / name, **how))
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600


def test_a_line_that_is_no_rating_is_quoted_on_one_short_line(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\x1b[2J" * 10**5)
    with pytest.raises(ValueError, match="line 2") as raised:
        datasets.read_ratings(tmp_path / "ratings.csv")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600


def test_the_command_shows_titles_and_words_as_text(tmp_path, capsys, monkeypatch):
    pytest.importorskip("rich", reason="needs the extra cli")
    pytest.importorskip("safetensors", reason="needs the extra checkpoint")
    monkeypatch.setenv("COLUMNS", "200")
    rows = [f"{user},{item},5,{user}" for user in range(8) for item in range(5) if (user + item) % 2]
    (tmp_path / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]))
    titles = "".join(f'{item},"{item}{STEERING}"\n' for item in range(5))
    (tmp_path / "titles.csv").write_text("movieId,title\n" + titles, newline="", encoding="utf-8")
    assert cli.main(["train", "ratings", str(tmp_path / "ratings.csv"), "--dim", "2", "--epochs", "1",
                     "--output", str(tmp_path)]) == 0
    capsys.readouterr()
    assert cli.main(["recommend", str(tmp_path / "checkpoint.safetensors"), "1", "--titles",
                     str(tmp_path / "titles.csv"), "--format", "table"]) == 0
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.split("\n"))
    assert f"│ 1{ESCAPED} │" in said
    (tmp_path / "words.txt").write_text("2 2\na\x1b[2J[bold] 1 0\nb 1 0.1\n", newline="")
    assert cli.main(["neighbours", str(tmp_path / "words.txt"), "b", "--format", "table"]) == 0
    said = capsys.readouterr().out
    assert r"a\x1b[2J[bold] 1.00" in said
    assert "\x1b" not in said


def test_the_command_shows_errors_as_text(tmp_path, capsys):
    pytest.importorskip("rich", reason="needs the extra cli")
    (tmp_path / "log.csv").write_text("click,a\n\x1b[2J" + "x" * 3000 + ",1\n")
    assert cli.main(["train", "clicks", str(tmp_path / "log.csv"), "--output", str(tmp_path / "c")]) == 1
    said = capsys.readouterr().err
    assert said.removesuffix("\n").isprintable()
    assert len(said) < 1100
