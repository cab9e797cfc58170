"""Ratings and plays by command: each layout that people have, recommendations for all and for new people."""

import gzip
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from sparseopt import checkpoint, cli

PAGE = Path(__file__).parents[1] / "docs" / "recommenders.md"
# Users like items of their own parity.
RNG = np.random.default_rng(0)
RATED = [(user, item, int(RNG.integers(4, 6) if user % 2 == item % 2 else RNG.integers(1, 4)), int(RNG.integers(10**9)))
         for user in range(40) for item in RNG.permutation(30)[:15].tolist()]


def user_id(user):
    return f"A{user:03}X"


def item_id(item):
    return f"{item:03}B"


def lines(form):
    return "".join(form.format(u=user, i=item, r=rating, t=978300000 + time, U=user_id(user), I=item_id(item),
                               p=1500 if rating > 3 else 1) + "\n" for user, item, rating, time in RATED).encode()


LAYOUTS = {
    "u.data": lines("{u}\t{i}\t{r}\t{t}"),
    "ratings.dat": lines("{u}::{i}::{r}::{t}"),
    "ratings.csv": b"userId,movieId,rating,timestamp\n" + lines("{u},{i},{r},{t}"),
    # Book-Crossing: Latin-1, and a 0 where a reader has not rated.
    "BX-Book-Ratings.csv": (b'"User-ID";"ISBN";"Book-Rating"\r\n"9999";"D\xe9j\xe0";"10"\r\n'
                            + lines('"{u}";"{I}";"{r}"\r') + lines('"{U}";"{I}";"0"\r')),
    "ratings_Books.csv": lines("{U},{I},{r}.0,{t}"),
    "reviews_Books.json.gz": gzip.compress(lines(
        '{{"reviewerID": "{U}", "asin": "{I}", "helpful": [0, 1], "reviewText": "x, y\\n", "overall": {r}.0, '
        '"unixReviewTime": {t}, "reviewTime": "01 2, 2014"}}')),
    "Books.jsonl.gz": gzip.compress(lines(
        '{{"rating": {r}.0, "title": "t", "asin": "{I}", "parent_asin": "{I}", "user_id": "{U}", '
        '"timestamp": {t}123}}')),
    "user_artists.dat": b"userID\tartistID\tweight\n" + lines("{u}\t{i}\t{p}"),
    "usersha1-artmbid-artname-plays.tsv": lines('{U}\t\t"band" {I}\t{p}'),
    "userid-timestamp-artid-artname-traid-traname.tsv": lines(
        "{U}\t2009-05-04T23:08:57Z\tm-{I}\tband {I}\t\ttrack"),
    "pairs.txt": lines("{U} {I}"),
}


def run(capsys, *arguments, status=0):
    assert cli.main([str(argument) for argument in arguments]) == status
    captured = capsys.readouterr()
    return captured.out, " ".join(captured.err.split())


def table(out):
    return [line.split("\t") for line in out.rstrip("\n").split("\n")]


def commands():
    """The commands that the page names for each file."""
    found = re.findall(r"`(sparseopt train ratings ([\w.-]+)[^`]*)`", PAGE.read_text(encoding="utf-8"))
    return {file: shlex.split(command)[1:] for command, file in found if file in LAYOUTS}


def test_the_page_names_a_command_for_every_layout():
    assert set(commands()) == set(LAYOUTS)


@pytest.mark.parametrize("file", LAYOUTS)
def test_every_layout_is_trained_by_the_command_that_the_page_names(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path(file).write_bytes(LAYOUTS[file])
    _, said = run(capsys, *commands()[file], "--dim", 8, "--output", "model", "--batch-size", 64)
    stored = checkpoint.load("model/checkpoint.safetensors").metadata
    named = {str(one) for one in stored["user_ids"]}
    users = {user_id(user) for user, *_ in RATED} if "A000X" in named else {str(user) for user, *_ in RATED}
    assert users <= named | {"9999"}
    # Everybody is recommended items of the right parity; from pairs without ratings nobody can tell.
    if file not in ("pairs.txt", "userid-timestamp-artid-artname-traid-traname.tsv", "BX-Book-Ratings.csv"):
        out, _ = run(capsys, "recommend", "model/checkpoint.safetensors", *sorted(users)[:6], "-n", 5)
        right = [int(re.search(r"\d+", user)[0]) % 2 == int(re.search(r"\d+", item)[0]) % 2
                 for user, item, _ in table(out)[1:]]
        assert len(right) == 30
        assert np.mean(right) > 0.8
    if "plays" in file or "artists" in file:
        assert "counts; the weight of a pair is 1 + ln(count)" in said
    if file == "BX-Book-Ratings.csv":
        assert "ratings of at least 8 count as chosen (four fifths of the highest, 10), and 0, which is no" in said


def trained(folder, capsys, file="ratings_Books.csv", *more):
    path = folder / file
    path.write_bytes(LAYOUTS[file])
    out, said = run(capsys, "train", "ratings", path, "--dim", 8, "--batch-size", 64, "--output", folder / "model",
                    *more)
    return path, folder / "model" / "checkpoint.safetensors", out, said


def test_all_users_are_recommended_items_into_a_file(tmp_path, capsys):
    path, model, _, said = trained(tmp_path, capsys)
    assert "user: column 0; item: column 1; rating: column 2; time: column 3 (commas, no header)" in said
    assert re.search(r"ratings of at least 4 count as chosen \(four fifths of the highest, 5\); \d+ other ratings are "
                     r"left out \(--min-rating\)", said)
    out, said = run(capsys, "recommend", model, "--all", "--seen", path, "-n", 3, "--output", tmp_path / "top.csv")
    assert out == ""
    rows = [line.split(",") for line in (tmp_path / "top.csv").read_text().splitlines()]
    assert rows[0] == ["user", "item", "score"]
    assert [row[0] for row in rows[1:]] == [user_id(user) for user in range(40) for _ in range(3)]
    seen = {(user_id(user), item_id(item)) for user, item, *_ in RATED}         # those with low ratings too
    assert not seen & {tuple(row[:2]) for row in rows}
    out, _ = run(capsys, "recommend", model, user_id(7), "--seen", path, "-n", 3)
    assert [row[1] for row in table(out)[1:]] == [row[1] for row in rows if row[0] == user_id(7)]
    parquet = pytest.importorskip("pyarrow.parquet")
    run(capsys, "recommend", model, "--all", "--seen", path, "-n", 3, "--output", tmp_path / "top.parquet")
    found = parquet.read_table(tmp_path / "top.parquet").to_pylist()
    assert [[row["user"], row["item"]] for row in found] == [row[:2] for row in rows[1:]]


def test_someone_new_is_recommended_items_by_their_ids(tmp_path, capsys):
    _, model, _, _ = trained(tmp_path, capsys)
    titles = tmp_path / "u.item"
    titles.write_bytes(b"".join(b"%03dB|Num\xe9ro, %d (1994)|x\n" % (item, item) for item in range(30)))
    out, said = run(capsys, "recommend", model, "--items", "003B,011B", "--titles", titles, "-n", 4, "--format", "json")
    assert "u.item: its bytes are no UTF-8; read as latin-1 (--encoding)" in said
    rows = json.loads(out)
    assert [list(row) for row in rows] == [["item", "title", "score"]] * 4
    assert all(int(row["item"][:3]) % 2 == 1 for row in rows)
    assert not {"003B", "011B"} & {row["item"] for row in rows}
    assert rows[0]["title"] == f"Numéro, {int(rows[0]['item'][:3])} (1994)"
    titles.write_text("".join(f"{item_id(item)}::Film {item}::Drama\n" for item in range(30)))
    out, _ = run(capsys, "recommend", model, "--like", "004B", "--titles", titles, "-n", 3)
    assert [row[:1] for row in table(out)] == [["like"], ["004B"], ["004B"], ["004B"]]
    assert all(re.fullmatch(r"Film \d+", row[2]) for row in table(out)[1:])
    for arguments, status, message in (
            (["--items", "003B,nothing"], 1, "the model does not know item nothing"),
            ([user_id(1), "--items", "003B"], 2, "USER and --items is given; exactly one of"),
            (["--items", "003B", "--seen", titles], 2, "--seen does not go with --items"),
            ([user_id(1), "--titles", PAGE.parent.parent / "LICENSE"], 1, "LICENSE"),
            (["--all", "--output", tmp_path / "top.xls"], 2, "--output"),
            (["--all", "--encoding", "klingon"], 2, "encoding (--encoding) is 'klingon'")):
        _, said = run(capsys, "recommend", model, *arguments, status=status)
        assert message in said


def test_someone_new_rates_items_for_the_model_explicit(tmp_path, capsys):
    _, model, _, _ = trained(tmp_path, capsys, "u.data", "--model", "explicit", "--epochs", 60)
    for ratings, parity in (("0=5,1=1,2=5,3=1", 0), ("0=1,1=5,2=1,3=5", 1)):
        out, _ = run(capsys, "recommend", model, "--items", ratings, "-n", 5)
        assert np.mean([int(item) % 2 == parity for item, _ in table(out)[1:]]) > 0.7
    run(capsys, "recommend", model, "--items", "0,2", "-n", 5)
    _, said = run(capsys, "recommend", model, "--items", "0=5,1", status=2)
    assert "either all items must have a rating, as in ITEM=RATING, or none" in said


def test_counts_and_ratings_are_not_mistaken_for_each_other(tmp_path, capsys):
    path = tmp_path / "plays.tsv"
    path.write_bytes(LAYOUTS["user_artists.dat"])
    for arguments, status, message in (
            (["--model", "explicit"], 1, "there are no ratings, but counts (user: userID; item: artistID; weight:"),
            (["--min-rating", 4], 1, "min_rating (--min-rating) is 4.0, and the values are counts"),
            (["--columns", "user=0,film=1"], 2, "columns (--columns) has 'film'"),
            (["--sep", ""], 2, "sep (--sep) is ''")):
        _, said = run(capsys, "train", "ratings", path, *arguments, "--output", tmp_path / "model", status=status)
        assert message in said
    with pytest.raises(SystemExit):
        run(capsys, "train", "ratings", path, "--columns", "user")
    assert "'user' is not allowed; it must be user=COLUMN,item=COLUMN" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    _, said = run(capsys, "train", "ratings", path, "--model", "explicit", "--columns", "rating=weight", "--dim", 2,
                  "--epochs", 1, "--output", tmp_path / "model")
    assert "rating: weight" in said
    _, said = run(capsys, "train", "ratings", path, "--columns", "rating=weight", "--weights", "--dim", 2,
                  "--epochs", 1, "--output", tmp_path / "model", "--overwrite")
    assert "counts; the weight of a pair is 1 + ln(count)" in said


def test_a_zero_that_is_no_rating_is_left_out_by_the_model_explicit_and_its_evaluation(tmp_path, capsys):
    path = tmp_path / "books.csv"
    path.write_text("User-ID,ISBN,Book-Rating\n" + "".join(
        f"{user},{item},{rating * 2}\n{user},{item + 30},0\n" for user, item, rating, _ in RATED))
    settings = ["--model", "explicit", "--epochs", 5, "--dim", 2]
    for command in (["train", "ratings", path, *settings, "--output", tmp_path / "m"],
                    ["evaluate", "ratings", tmp_path / "m" / "checkpoint.safetensors", path]):
        _, said = run(capsys, *command)
        assert "books.csv: 600 ratings are 0, which is no rating here; they are left out" in said


def test_what_is_held_out_is_never_trained_on(tmp_path, capsys):
    path = tmp_path / "plays.csv"
    rows = [(user, item) for user, item, *_ in RATED for _ in range(3)]
    np.random.default_rng(1).shuffle(rows)
    for name, header, form in (("times", "user,item,rating,time\n", "{},{},5,{}\n"),
                               ("none", "user,item,rating\n", "{},{},5\n")):
        path.write_text(header + "".join(form.format(*row, time) for time, row in enumerate(rows)))
        _, said = run(capsys, "train", "ratings", path, "--held-out", 0.2, "--dim", 2, "--epochs", 1,
                        "--output", tmp_path / name)
        assert "rows that repeat a pair of a user and an item: 1,200; of each pair, the last rating is kept" in said
        assert "480 ratings of 30 items by 40 users, 120 others held out" in said
        assert ("there are no times; what is held out is drawn at random" in said) == (name == "none")
        model = tmp_path / name / "checkpoint.safetensors"
        _, said = run(capsys, "train", "ratings", path, "--epochs", 2, "--resume", model)
        assert "480 ratings of 30 items by 40 users, 120 others held out" in said
        _, said = run(capsys, "train", "ratings", path, "--epochs", 3, "--held-out", 0.1, "--resume", model, status=2)
        assert "--held-out is 0.1, and the checkpoint was trained with 0.2 held out" in said
    header, *lines = path.read_text().splitlines()
    for changed in ([header, *lines, "new,new,5"], [header, *sorted(lines)],
                    [header + ",time", *(f"{line},{time}" for time, line in enumerate(lines))]):
        path.write_text("\n".join(changed))
        _, said = run(capsys, "train", "ratings", path, "--epochs", 3, "--resume", model, status=1)
        assert "what was held out at random is known only for the ratings of the training" in said


def test_a_model_is_resumed_and_evaluated_with_ids_and_options_as_in_training(tmp_path, capsys):
    columns = ["--columns", "user=0,item=2,weight=3"]
    path, model, _, _ = trained(tmp_path, capsys, "usersha1-artmbid-artname-plays.tsv", *columns, "--epochs", 2)
    new = tmp_path / "new.tsv"
    new.write_bytes(b"newcomer\t\tnew band\t7\n" + path.read_bytes())
    _, said = run(capsys, "train", "ratings", new, "--resume", model, "--epochs", 3)
    assert "601 ratings of 31 items by 41 users" in said
    stored = checkpoint.load(model).metadata
    assert (stored["user_ids"][-1], stored["item_ids"][-1]) == ("newcomer", "new band")
    assert stored["user_ids"][:40] == [user_id(user) for user in range(40)]
    out, _ = run(capsys, "evaluate", "ratings", model, new)
    assert table(out)[1][0] == "601"
    out, _ = run(capsys, "recommend", model, "newcomer", "--seen", new, "-n", 31)
    assert "new band" not in [row[1] for row in table(out)]
    assert len(table(out)) == 31
    _, said = run(capsys, "train", "ratings", new, "--resume", model, "--epochs", 4, "--min-rating", 1, status=2)
    assert "--min-rating does not go with --resume: the checkpoint has this setting" in said


def test_integer_ids_stay_known_where_others_are_texts(tmp_path, capsys):
    _, model, _, _ = trained(tmp_path, capsys, "u.data", "--epochs", 1)
    more = tmp_path / "more.data"
    more.write_bytes(LAYOUTS["u.data"] + b"ann\t3\t5\t7\n")
    _, said = run(capsys, "train", "ratings", more, "--resume", model, "--epochs", 2)
    assert "by 41 users" in said
    out, _ = run(capsys, "recommend", model, "ann", "7", "-n", 2)
    assert [row[0] for row in table(out)[1:]] == ["ann", "ann", "7", "7"]


def test_compare_takes_the_same_options_and_prints_these_again(tmp_path, capsys):
    path = tmp_path / "other.txt"
    path.write_bytes(lines("{r};{I};{U}"))
    how = ["--columns", "user=2,item=1,rating=0", "--min-rating", 5, "--no-header"]
    _, said = run(capsys, "compare", "ratings", path, *how, "--dim", 2, "--optimizers", "adagrad", "--lr", 0.1,
                  "--epochs", 1)
    assert "a fifth, drawn at random, of each user's ratings" in said
    command = shlex.split(re.search(r"on all of the data: sparseopt (.*)", said)[1])
    said = " ".join(command)
    assert "--min-rating 5.0 --columns user=2,item=1,rating=0 --no-header" in said
    run(capsys, *command, "--output", tmp_path / "model")


def test_ratings_to_judge_that_were_seen_are_left_out_and_options_without_effect_are_refused(tmp_path, capsys):
    path, new, seen = tmp_path / "ratings.csv", tmp_path / "new.csv", tmp_path / "seen.csv"
    rows = LAYOUTS["ratings.csv"].splitlines(keepends=True)
    for file, some in ((path, rows), (new, rows[:21]), (seen, rows[:11])):
        file.write_bytes(b"".join(some))
    run(capsys, "train", "ratings", path, "--epochs", "1", "--output", tmp_path / "m")
    command = "evaluate", "ratings", tmp_path / "m" / "checkpoint.safetensors", new, "--seen"
    liked = [rating > 3 for _, _, rating, _ in RATED[:20]]
    out, said = run(capsys, *command, seen)
    assert f"new.csv: {sum(liked[:10])} ratings whose user and item are in seen.csv, too, are left out" in said
    assert table(out)[1][0] == str(sum(liked[10:]))
    _, said = run(capsys, *command, path, status=1)
    assert "all pairs of users and items are in " in said
    run(capsys, "train", "ratings", path, "--model", "explicit", "--epochs", "1", "--output", tmp_path / "e")
    for option in (["--seen", path], ["-k", 5]):
        command = "evaluate", "ratings", tmp_path / "e" / "checkpoint.safetensors", new, *option
        _, said = run(capsys, *command, status=2)
        assert f"{option[0]} does not go with a model explicit" in said


def test_beside_each_measure_stands_that_of_what_is_popular_or_of_the_mean(tmp_path, capsys):
    path, _, out, said = trained(tmp_path, capsys, "ratings_Books.csv", "--held-out", 0.2, "--epochs", 15)
    found = {row[1]: [float(value) for value in row[2:]] for row in table(out)[1:]}
    assert table(out)[0] == ["ratings held out", "measure", "value", "by popularity"]
    assert list(found) == ["precision at 10", "recall at 10", "ndcg at 10", "map at 10"]
    liked, held_out = [(u, i, t) for u, i, r, t in RATED if r >= 4], {}
    for user in range(40):
        own = sorted((t, i) for u, i, t in liked if u == user)
        held_out[user] = [i for _, i in own[len(own) - int(len(own) * 0.2):]]
    train = [(u, i) for u, i, _ in liked if i not in held_out[u]]
    popular = sorted(range(30), key=lambda item: -sum(i == item for _, i in train))
    recalls = [np.mean([i in [p for p in popular if (user, p) not in train][:10] for i in own])
               for user, own in held_out.items() if own]
    assert found["recall at 10"][1] == pytest.approx(np.mean(recalls), abs=1e-4)
    assert found["ndcg at 10"][0] > found["ndcg at 10"][1]
    assert "warning" not in said
    summary = json.loads((tmp_path / "model" / "run.json").read_text())
    assert summary["quality"]["recall at 10, by popularity"] == pytest.approx(np.mean(recalls))
    assert not any("popularity" in name for name in summary["epochs"][0])

    _, model, out, said = trained(tmp_path, capsys, "ratings_Books.csv", "--held-out", 0.2, "--model", "explicit",
                                  "--epochs", 1, "--lr", 3, "--overwrite")
    mine, of_mean = map(float, table(out)[1][2:])
    assert table(out)[0][-1] == "of the mean alone"
    assert mine > of_mean
    assert "warning: the mean of all ratings predicts better than this model (root mean squared error: " in said
    train, test = [], []
    for user in range(40):
        own = [r for _, r in sorted((t, r) for u, _, r, t in RATED if u == user)]
        train, test = train + own[:12], test + own[12:]
    assert of_mean == pytest.approx(np.sqrt(np.mean((np.mean(train) - test) ** 2)), abs=1e-4)

    _, model, _, _ = trained(tmp_path, capsys, "ratings_Books.csv", "--overwrite")
    assert {row[3] for row in table(run(capsys, "evaluate", "ratings", model, path)[0])[1:]} == {"-"}
    part = tmp_path / "part.csv"
    part.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:300]))
    out, said = run(capsys, "evaluate", "ratings", model, path, "--seen", part, "-k", 3)
    assert table(out)[1][:2] == [str(sum(rating >= 4 for *_, rating, _ in RATED[300:])), "precision at 3"]
    assert all(float(row[3]) > 0 for row in table(out)[1:])
    assert f"{sum(rating >= 4 for *_, rating, _ in RATED[:300])} ratings whose user and item are in part.csv" in said
    _, said = run(capsys, "evaluate", "ratings", model, path, "--seen", path, status=1)
    assert "all pairs of users and items are in " in said


def test_without_the_file_of_the_training_the_command_says_that_its_items_may_come(tmp_path, capsys):
    path, model, _, _ = trained(tmp_path, capsys, "u.data", "--epochs", 1)
    part = tmp_path / "part.data"
    part.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:300]))
    for command, hint in ((["recommend", model, "7"], "items that a user had in the training may come again; --seen"),
                          (["recommend", model, "--all"], "items that a user had in the training may come again"),
                          (["evaluate", "ratings", model, path], "without --seen, items of the training take places")):
        assert hint in run(capsys, *command)[1]
        assert "--seen" not in run(capsys, *command, "--seen", part)[1]
    assert "--seen" not in run(capsys, "recommend", model, "--like", "7")[1] + run(capsys, "recommend", model,
                                                                                   "--items", "7")[1]


def test_a_resumed_training_takes_the_model_of_its_checkpoint(tmp_path, capsys):
    for name, other in (("explicit", "implicit"), ("implicit", "explicit")):
        path, model, _, _ = trained(tmp_path, capsys, "u.data", "--model", name, "--epochs", 1, "--overwrite")
        kind = checkpoint.load(model).metadata["model_type"]
        run(capsys, "train", "ratings", path, "--resume", model, "--epochs", 2)
        run(capsys, "train", "ratings", path, "--resume", model, "--epochs", 3, "--model", name)
        assert checkpoint.load(model).metadata["model_type"] == kind
        before = model.read_bytes()
        _, said = run(capsys, "train", "ratings", path, "--resume", model, "--epochs", 4, "--model", other, status=2)
        assert f"--model is {other}, and " in said
        assert f"is a checkpoint of the model {name}; leave --model out" in said
        assert model.read_bytes() == before


def test_ids_on_the_command_line_are_read_as_in_files_and_slips_are_told(tmp_path, capsys):
    _, model, _, _ = trained(tmp_path, capsys, "u.data", "--epochs", 1)
    plain, _ = run(capsys, "recommend", model, "1", "-n", 2)
    assert run(capsys, "recommend", model, "1.0", "-n", 2)[0] == plain
    plain, _ = run(capsys, "recommend", model, "--items", "7,8", "-n", 2)
    assert run(capsys, "recommend", model, "--items", "7.0,8", "-n", 2)[0] == plain
    for arguments, status, message in (
            (["--items", "7,8,7.0"], 2, "--items has 7.0 twice; each item must be there once"),
            (["--items", "7=5,8"], 2, "--items has 7=5; ratings go with the model explicit only"),
            (["17,18"], 1, "the model does not know user 17,18; it must be an id of the ratings that the model was "
                           "trained on, such as 0; spaces, not commas, stand between users")):
        out, said = run(capsys, "recommend", model, *arguments, status=status)
        assert (out, message in said) == ("", True), said
    path = tmp_path / "signs.csv"
    path.write_text("user,item,plays\nann,a=1,3\nann,b=2,4\nbob,a=1,5\nbob,c,2\n")
    run(capsys, "train", "ratings", path, "--dim", 2, "--epochs", 1, "--output", tmp_path / "signs")
    out, _ = run(capsys, "recommend", tmp_path / "signs" / "checkpoint.safetensors", "--items", "a=1,c", "-n", 1)
    assert table(out)[1][0] == "b=2"


def test_titles_come_from_well_known_columns_and_from_the_first_if_these_have_other_ids(tmp_path, capsys):
    _, model, _, _ = trained(tmp_path, capsys, "u.data", "--epochs", 1)
    titles = tmp_path / "titles.csv"
    for header, form in (("InvoiceNo,StockCode,Description", "C1,{i},Jug {i}"),
                         ("number,isbn,title", "{i},X{i},Jug {i}"),             # the ISBNs are no ids of the model
                         ("movieId,imdbId,year,title", "{i},{i}77,1994,Jug {i}")):
        rows = [form.format(i=i) for i in range(30)]
        titles.write_text("\n".join([header, *rows, *rows]) + "\n")
        out, _ = run(capsys, "recommend", model, "3", "--titles", titles, "-n", 5)
        assert all(row[2] == f"Jug {row[1]}" for row in table(out)[1:])
    titles.write_text("StockCode,Description\n" + "".join(f"{i},{text}\n" for i in range(30) for text in
                                                          ("damaged", f"Jug {i}", "", f"Jug {i}", "lost")))
    out, _ = run(capsys, "recommend", model, "3", "--titles", titles, "-n", 5)
    assert all(row[2] == f"Jug {row[1]}" for row in table(out)[1:])
    titles.write_text("isbn,title\nX,Jug\n")
    _, said = run(capsys, "recommend", model, "3", "--titles", titles, status=1)
    assert "a column with a well-known name of items, or the first column, must have such ids as 0" in said


def test_invoices_of_a_shop_are_trained_by_the_commands_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    section = re.search(r"## From a shop's invoices\n(.*?)\n## ", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    steps = [shlex.split(line)[1:] for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
             for line in block.splitlines()]
    codes = ["85123A", "71053", *(f"{22000 + i}" for i in range(28))]
    names = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    rows = [f"5{n},{codes[item]},\"MUG, CAF\xc9 {item}\",{rating},{1 + user % 12}/{1 + n % 28}/2010 8:26,2.55,"
            f"{17850 + user},EIRE\n" for n, (user, item, rating, _) in enumerate(RATED)]
    back = [row.replace(f",{RATED[n][2]},", f",-{RATED[n][2]},", 1) for n, row in enumerate(rows[:7])]
    nobody = [re.sub(r"2\.55,\d+", "2.55,", row) for row in rows[:5]]
    Path("invoices.csv").write_text(names + "".join(rows + back + nobody), encoding="latin-1")
    pairs = {pair[:2] for pair in RATED}
    fresh = [f"6,{codes[item]},MUG,1,12/31/2010 9:00,2.55,{17850 + user},EIRE\n" for user in range(40)
             for item in range(user % 2, 30, 2) if (user, item) not in pairs]
    Path("new-invoices.csv").write_text(names + "".join(fresh + rows[:9]), encoding="latin-1")
    found = [run(capsys, *step) for step in steps]
    assert "rows with an empty cell (or NA, NaN, null), which are left out: 5" in found[0][1]
    assert "7 pairs whose count is not above 0 are left out" in found[0][1]
    assert "user: CustomerID; item: StockCode; weight: Quantity; time: InvoiceDate" in found[0][1]
    assert "no times" not in found[0][1]
    for out, _ in found[2:5]:
        assert len(table(out)) == 11
        for *_, item, title, _ in table(out)[1:]:
            assert title == f"MUG, CAF\xc9 {codes.index(item)}"
    bought = {codes[item] for user, item, *_ in RATED if user == 0}
    assert not bought & {row[1] for row in table(found[2][0])}
    assert len(Path("top.csv").read_text().splitlines()) == 1 + 40 * 10
    assert table(found[-1][0])[1][:2] == [str(len(fresh)), "precision at 10"]
    assert all(float(value) > float(popular) for *_, value, popular in table(found[-1][0])[1:])
