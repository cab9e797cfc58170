"""The commands train, evaluate, neighbours, recommend and compare, each on a small file."""

import gzip
import re

import numpy as np
import pytest

from sparseopt import cli
from sparseopt.cli import _comparison
from sparseopt.cli._comparison import Task, Trial
from sparseopt.models import CBOW, SkipGram


def run(capsys, *arguments):
    """Run a command, check that it succeeds, and return tables and messages in one line."""
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return " ".join((captured.out + captured.err).split())


def refused(capsys, *arguments, status=2):
    """Run a command, check that it ends with this status, and return its error in one line."""
    try:
        ended = cli.main([str(argument) for argument in arguments])
    except SystemExit as error:                 # argparse's own errors
        ended = error.code
    assert ended == status
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def text(documentation, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(documentation[:40]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("clicks") / "clicks.csv"
    lines = ["click,site,price"]
    for _ in range(4000):
        site, price = "abcd"[rng.integers(4)], rng.random()
        lines.append(f"{int(rng.random() < {'a': 0.9, 'b': 0.6}.get(site, 0.1))},{site},{price:.2f}")
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    lines = ["userId,movieId,rating,timestamp"]
    for user in range(60):
        for item in rng.permutation(40)[:20]:
            likes = user % 2 == item % 2                    # ids are not numbers from 0
            rating = (4.5 if likes else 1.5) + rng.integers(2) / 2
            lines.append(f"{100 + user},{1000 + 3 * item},{rating},{rng.integers(10**9)}")
    path.write_text("\n".join(lines))
    return path


def test_skip_gram_is_trained_resumed_and_judged(text, tmp_path, capsys):
    settings = ["--model", "skipgram", "--dim", 8, "--min-count", 3, "--batch-size", 64, "--random-state", 5]
    said = run(capsys, "train", "words", text, *settings, "--epochs", 3, "--output", tmp_path / "whole")
    assert re.search(r"3 epochs, loss [\d.]+ → [\d.]+, \d+ s, [\d,]+ words/s", said)
    run(capsys, "train", "words", text, *settings, "--epochs", 2, "--output", tmp_path / "part")
    said = run(capsys, "neighbours", tmp_path / "whole" / "vectors.txt", "The", "nosuchword", "-n", 3)
    again = run(capsys, "neighbours", tmp_path / "whole" / "checkpoint.safetensors", "The", "nosuchword", "-n", 3)
    assert again == said
    assert "nosuchword is not among the words" in said
    assert re.search(r"word neighbour cosine the \S+ -?[\d.]+ the \S+ -?[\d.]+ the \S+ -?[\d.]+", said)
    (tmp_path / "pairs.tsv").write_text("the\tand\t7\nthe\tof\t5\nin\tof\t9\nqqq\tof\t1\n")
    (tmp_path / "four.txt").write_text(": x\nthe of in and\nqqq of in and\n")
    said = run(capsys, "evaluate", "words", tmp_path / "whole" / "vectors.txt", "--pairs", tmp_path / "pairs.tsv",
               "--analogies", tmp_path / "four.txt")
    assert re.search(r"pairs.tsv Spearman's correlation -?[\d.]+ 3 4", said)
    assert re.search(r"four.txt analogies answered [\d.]+ 1 2", said)
    checkpoint = tmp_path / "part" / "checkpoint.safetensors"
    assert "is a checkpoint of SkipGram; without --model" in refused(
        capsys, "train", "words", text, "--model", "glove", "--resume", checkpoint)
    run(capsys, "train", "words", text, "--resume", checkpoint, "--epochs", 3)      # the model is the checkpoint's


def test_cbow_is_trained_and_resumed(text, tmp_path, capsys):
    settings = ["--model", "cbow", "--dim", 8, "--min-count", 3, "--random-state", 5]
    said = run(capsys, "train", "words", text, *settings, "--epochs", 3, "--output", tmp_path / "whole")
    assert re.search(r"3 epochs, loss [\d.]+ → [\d.]+, \d+ s, [\d,]+ words/s", said)
    run(capsys, "train", "words", text, *settings, "--epochs", 2, "--output", tmp_path / "part")
    assert isinstance(CBOW.load(tmp_path / "part" / "checkpoint.safetensors"), CBOW)
    run(capsys, "train", "words", text, "--resume", tmp_path / "part" / "checkpoint.safetensors", "--epochs", 3)


def test_ids_between_white_space_are_trained_and_resumed_as_they_stand(tmp_path, capsys):
    walks = tmp_path / "walks.txt"
    walks.write_text("Item_3 Item_17 9\nItem_17 9 Item_3\n" * 40, encoding="utf-16")
    how = ["--model", "skipgram", "--dim", 4, "--sample", 0, "--batch-size", 16]
    read = ["--tokens", "whitespace", "--encoding", "utf-16"]
    run(capsys, "train", "words", walks, *how, *read, "--epochs", 2, "--output", tmp_path / "walks")
    checkpoint = tmp_path / "walks" / "checkpoint.safetensors"
    run(capsys, "train", "words", walks, "--epochs", 3, "--resume", checkpoint)
    model = SkipGram.load(checkpoint)
    assert set(model.words_) == {"Item_3", "Item_17", "9"}
    assert len(model.loss_curve_) == 3
    for option, value in (("--tokens", "words"), ("--encoding", "utf-8"), ("--min-count", 2)):
        assert f"{option} does not go with --resume" in refused(
            capsys, "train", "words", walks, "--resume", checkpoint, option, value)
    assert "--tokens says how files are read" in refused(
        capsys, "train", "words", "--tokens", "words", "--output", tmp_path / "none")
    assert "'latin77' is no encoding" in refused(capsys, "train", "words", walks, "--encoding", "latin77")
    assert not (tmp_path / "none").exists()


def test_what_a_text_has_that_is_left_out_is_said_once(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_bytes("Das Mädchen läuft. Die Türen und das Haus.\n".encode("latin-1") * 20)
    assert cli.main(["train", "words", str(text), "--epochs", "1", "--output", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().err.count("60 bytes are no text in utf-8") == 1
    said = run(capsys, "train", "words", text, "--encoding", "latin-1", "--epochs", 1, "--output", tmp_path / "b")
    assert "mädchen" in said
    text.write_text("item_1 item_2 item_3\n" * 20)
    said = refused(capsys, "train", "words", text, "--output", tmp_path / "c", status=1)
    assert said.count("60 of the first 60 parts between white space have digits") == 1
    assert "--tokens whitespace takes numbers and ids as words" in said


def test_neighbours_names_unknown_words_and_fails_only_if_none_is_known(tmp_path, capsys):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("whale 1 0\nmädchen 1 0.1\nship 0 1\n", encoding="utf-8")     # as GloVe writes, without a header
    assert cli.main(["neighbours", str(vectors), "whales", "Ma\u0308dchen", "-n", "1",
                     "--output", str(tmp_path / "near.csv")]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "whales is not among the words; close ones are whale"
    assert said.out == ""
    assert (tmp_path / "near.csv").read_text(encoding="utf-8").splitlines()[1].startswith("mädchen,whale,0.99")
    assert cli.main(["neighbours", str(vectors), "whales"]) == 1


def test_settings_of_another_model_are_refused(text, clicks, ratings, tmp_path, capsys):
    for name, file, arguments, said in [
            ("words", text, ["--x-max", "5", "--model", "skipgram"], "--x-max does not go with --model skipgram"),
            ("words", text, ["--negative", "5"], "--negative does not go with --model glove"),
            ("clicks", clicks, ["--dim", "5"], "--dim does not go with --model linear"),
            ("ratings", ratings, ["--loss", "bpr", "--model", "explicit"], "--loss does not go with --model explicit"),
            ("ratings", ratings, ["--min-rating", "3", "--model", "explicit"],
             "--min-rating does not go with --model explicit")]:
        assert said in refused(capsys, "train", name, file, "--output", tmp_path, *arguments)


def test_click_models_are_trained_resumed_and_judged(clicks, tmp_path, capsys):
    how = ["--label", "click", "--numbers", "price", "--n-features", 1024]
    said = run(capsys, "train", "clicks", clicks, *how, "--epochs", 2, "--batch-size", 20, "--test", clicks,
               "--output", tmp_path / "linear")
    assert "8,000 rows, progressive loss" in said
    first = float(re.search(r"4000 [\d.]+% ([\d.]+)", said)[1])
    # The file is read as in training.
    again = run(capsys, "evaluate", "clicks", tmp_path / "linear" / "checkpoint.safetensors", clicks)
    assert float(re.search(r"4000 [\d.]+% ([\d.]+)", again)[1]) == first < 0.42
    said = run(capsys, "train", "clicks", clicks, "--resume", tmp_path / "linear" / "checkpoint.safetensors",
               "--output", tmp_path / "more", "--test", clicks)
    assert float(re.search(r"4000 [\d.]+% ([\d.]+)", said)[1]) < first + 0.01
    said = run(capsys, "train", "clicks", clicks, *how, "--model", "fm", "--dim", 2, "--output", tmp_path / "fm")
    assert "4,000 rows" in said
    assert "the label, column site, has 4 different values" in refused(
        capsys, "train", "clicks", clicks, "--label", "site", "--output", tmp_path, status=1)


def test_recommenders_are_trained_judged_and_recommend_what_was_not_seen(ratings, tmp_path, capsys):
    said = run(capsys, "train", "ratings", ratings, "--dim", 8, "--held-out", 0.2, "--output", tmp_path / "implicit")
    assert float(re.search(r"precision at 10 ([\d.]+)", said)[1]) > 0.15
    (tmp_path / "titles.csv").write_text("movieId,title\n" + "\n".join(f"{1000 + 3 * i},Film {i}" for i in range(40)))
    checkpoint = tmp_path / "implicit" / "checkpoint.safetensors"
    said = run(capsys, "recommend", checkpoint, 101, 104, "--seen", ratings, "--titles",
               tmp_path / "titles.csv", "-n", 4)
    films = [int(film) for film in re.findall(r"Film (\d+)", said)]
    assert len(films) == 8
    assert sum(film % 2 == 1 for film in films[:4]) >= 3
    assert sum(film % 2 == 0 for film in films[4:]) >= 3
    given = ratings.read_text().split()
    rated = {tuple(map(int, line.split(",")[:2])) for line in given[1:] if float(line.split(",")[2]) >= 4}
    assert not rated & {(user, 1000 + 3 * film) for user, film in zip([101] * 4 + [104] * 4, films, strict=True)}
    said = run(capsys, "recommend", checkpoint, "--like", 1000, "-n", 3, "--titles", tmp_path / "titles.csv")
    assert sum(int(film) % 2 == 0 for film in re.findall(r"Film (\d+)", said)) >= 2
    for arguments, status, message in [([5], 1, "does not know user 5"), (["--like", 1], 1, "does not know item 1"),
                                       ([], 2, "nothing is given; exactly one of USER, --all, --items and --like"),
                                       ([5, "--like", 1], 2, "USER and --like is given; exactly one")]:
        assert message in refused(capsys, "recommend", checkpoint, *arguments, status=status)


def test_explicit_ratings_are_predicted_and_new_users_join(ratings, tmp_path, capsys):
    lines = ratings.read_text().split("\n")
    old, everything = tmp_path / "old.csv", tmp_path / "all.csv"
    # Users from 150 to 159 are new in the second training.
    old.write_text("\n".join(line for line in lines if not line.startswith("15")))
    everything.write_text("\n".join(lines))
    run(capsys, "train", "ratings", old, "--model", "explicit", "--dim", 4, "--epochs", 20, "--batch-size", 16,
        "--output", tmp_path / "old")
    said = run(capsys, "evaluate", "ratings", tmp_path / "old" / "checkpoint.safetensors", everything)
    assert "200 ratings of users or items that the model does not know are left out" in said
    assert float(re.search(r"root mean squared error ([\d.]+)", said)[1]) < 0.8
    run(capsys, "train", "ratings", everything, "--model", "explicit", "--epochs", 30, "--output", tmp_path / "all",
        "--resume", tmp_path / "old" / "checkpoint.safetensors")
    said = run(capsys, "evaluate", "ratings", tmp_path / "all" / "checkpoint.safetensors", everything)
    assert "left out" not in said
    assert float(re.search(r"root mean squared error ([\d.]+)", said)[1]) < 0.8


def test_compare_sorts_by_what_was_left_out_and_gives_a_command_that_works(text, clicks, ratings, tmp_path, capsys):
    for name, file, more in (("words", text, ["--dim", 4]), ("ratings", ratings, ["--dim", 4]),
                             ("clicks", clicks, ["--label", "click", "--numbers", "price", "--n-features", 512])):
        said = run(capsys, "compare", name, file, *more, "--optimizers", "momentum,adagrad", "--lr", "0.0001,0.05",
                   "--epochs", 2, "--picture", tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        best = [float(value) for value in re.findall(r"(?:momentum|adagrad|ftrl) [\d.e-]+ (-?[\d.]+) \d ", said)]
        assert len(best) == 5                   # with the default setting
        assert best == sorted(best, reverse=name == "ratings")
        command = re.search(r"on all of the data: sparseopt (.*)", said)[1].split()
        assert run(capsys, *command, "--output", tmp_path / name)


def test_a_random_search_draws_each_optimizer_as_often_between_the_rates():
    drawn = _comparison.draws(["sgd", "adam"], [0.001, 0.1], 40, seed=1)
    assert [name for name, _ in drawn].count("sgd") == 20
    rates = np.log10([lr for _, lr in drawn])
    assert -3 <= rates.min() < -2.7
    assert -1.3 < rates.max() <= -1
    assert drawn == _comparison.draws(["sgd", "adam"], [0.001, 0.1], 40, seed=1)


def test_a_trial_that_diverges_is_said_to_and_comes_last():
    task = Task("", "loss", False, None, None, None, 2)
    nan = float("nan")
    trials = [Trial("a", 1, [1, 2], [1, 2], [nan], "diverged"), Trial("b", 1, [1, 2], [1, 2], [3.0, 4.0], ""),
              Trial("c", 1, [1, 2], [1, 2], [5.0, 2.0], ""), Trial("d", 1, [], [], [], "diverged")]
    assert [trial.optimizer for trial in _comparison.ranked(task, trials)][:2] == ["c", "b"]
    assert trials[1].best(task) == (3.0, 1)
    assert trials[2].best(task._replace(higher=True)) == (5.0, 1)
    assert trials[0].best(task)[1] == 0


def test_a_resumed_skip_gram_has_its_rate_fall_until_the_new_end(text, tmp_path, capsys):
    settings = ["--model", "skipgram", "--dim", 8, "--min-count", 3, "--batch-size", 64]
    run(capsys, "train", "words", text, *settings, "--epochs", 2, "--output", tmp_path)
    ended = SkipGram.load(tmp_path / "checkpoint.safetensors").optimizer_
    run(capsys, "train", "words", text, "--epochs", 4, "--output", tmp_path, "--resume",
        tmp_path / "checkpoint.safetensors")
    model = SkipGram.load(tmp_path / "checkpoint.safetensors")
    before, after = ended.param_groups[0]["lr"], model.optimizer_.param_groups[0]["lr"]
    assert after.steps == pytest.approx(2 * before.steps, abs=1)
    assert after(ended.steps) > 0.4 * after.lr
    assert len(model.loss_curve_) == 4


def test_compare_covers_ratings_themselves(ratings, tmp_path, capsys):
    said = run(capsys, "compare", "ratings", ratings, "--model", "explicit", "--dim", 2, "--optimizers", "ftrl,adam",
               "--lr", 0.01, "--epochs", 3)
    found = [float(value) for value in re.findall(r"(?:ftrl|adam) 0.01 ([\d.]+) \d ", said)]
    assert len(found) == 2                      # and the default setting, adam 0.003
    assert max(found) < 1.6                     # the mean of all ratings alone has 1.52
    assert "2 of 3: ftrl 0.01: root mean squared error" in said
    command = re.search(r"on all of the data: sparseopt (.*)", said)[1].split()
    assert "--model explicit" in " ".join(command)
    run(capsys, *command, "--output", tmp_path / "best")


def test_compare_shows_the_others_where_one_diverges(clicks, capsys):
    said = run(capsys, "compare", "clicks", clicks, "--label", "click", "--numbers", "price", "--lr", "0.1,1e38",
               "--optimizers", "sgd,adam", "--epochs", 1)
    assert said.count("diverged") >= 1
    assert "adam 0.1" in said


def test_the_last_of_several_ratings_of_a_pair_counts_and_the_command_says_so(tmp_path, capsys):
    lines = [f"{user},{item},{1 + (user + item) % 5},{100 + user}" for user in range(6) for item in range(6)]
    head = "userId,movieId,rating,timestamp"
    (tmp_path / "once.csv").write_text("\n".join([head, *lines]))
    earlier = ["2,3,5,7", "4,4,1,9"]
    (tmp_path / "twice.csv").write_text("\n".join([head, *earlier, *lines]))
    losses = []
    for name in ("once", "twice"):
        said = run(capsys, "train", "ratings", tmp_path / f"{name}.csv", "--model", "explicit", "--dim", 2,
                   "--epochs", 2, "--output", tmp_path / name)
        assert ("twice.csv: rows that repeat a pair of a user and an item: 2; of each pair, the last rating is kept "
                "(--duplicates)" in said) == (name == "twice")
        assert "36 ratings of 6 items by 6 users" in said
        losses.append(re.search(r"loss ([\d.]+ → [\d.]+)", said)[1])
    assert losses[0] == losses[1]
    checkpoint = tmp_path / "once" / "checkpoint.safetensors"
    said = run(capsys, "evaluate", "ratings", checkpoint, tmp_path / "twice.csv")
    assert "rows that repeat a pair of a user and an item: 2" in said
    assert " 36 root mean squared error" in said


def test_brackets_in_words_are_words(tmp_path, capsys):
    (tmp_path / "v[x].txt").write_text("3 2\n[/s] 1 0\n[unk] 1 0.1\nc 0.9 0\n")
    said = run(capsys, "neighbours", tmp_path / "v[x].txt", "c")
    assert "c [/s] 1.000 c [unk] 0.995" in said


def test_a_truncated_archive_is_named(clicks, tmp_path, capsys):
    packed = gzip.compress(clicks.read_bytes())
    (tmp_path / "cut.csv.gz").write_bytes(packed[:len(packed) // 2])
    assert "cut.csv.gz: a damaged gzip file" in refused(capsys, "train", "clicks", tmp_path / "cut.csv.gz", "--label",
                                                        "click", "--output", tmp_path, status=1)


def test_compare_says_that_sorted_rows_cannot_be_judged(tmp_path, capsys):
    (tmp_path / "sorted.csv").write_text("click,a\n" + "0,x\n" * 200 + "1,y\n" * 200)
    said = refused(capsys, "compare", "clicks", tmp_path / "sorted.csv", "--optimizers", "sgd", status=1)
    assert "the last 20 of 400 rows all have the label of a click" in said
    assert "shuffle the file" in said


def test_trials_go_with_a_random_search_alone(clicks, capsys):
    settings = ["--label", "click", "--optimizers", "sgd", "--lr", "0.001,0.1", "--epochs", 1, "--trials", 3]
    said = run(capsys, "compare", "clicks", clicks, *settings, "--search", "random")
    assert len(re.findall(r"sgd [\d.]+ 0\.", said)) == 3
    assert "--trials is 3; it is allowed with --search random only" in refused(
        capsys, "compare", "clicks", clicks, *settings)
    assert "--lr is 0.1; --search random draws rates between two that are given" in refused(
        capsys, "compare", "clicks", clicks, "--search", "random", "--lr", "0.1")
    assert "--seed is 1; for click models it is allowed with --search random only" in refused(
        capsys, "compare", "clicks", clicks, *settings[:-2], "--seed", "1")
