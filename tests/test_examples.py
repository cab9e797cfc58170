"""The programs of examples/ learn, with torch's optimizers and with ours."""

import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the examples are programs for torch")

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_page_of_the_examples_names_all_programs():
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (ROOT / "examples" / target).exists(), target
    for path in (ROOT / "examples").glob("*.py"):
        assert f"({path.name})" in page
        assert f"python examples/{path.name}" in page


def test_novel_sentences_learns_the_same_with_torch_and_with_one_import_changed():
    import novel_sentences as program

    right, tables = {}, {}
    for name in program.OPTIMIZERS:
        torch.manual_seed(0)
        training, test = program.loaders_of(program.generate(each=200), rows=5_000)
        model = program.Classifier(8, rows=5_000, sparse=name != "dense")
        optimizers = program.optimizers_of(name, model)
        for _ in range(4):
            program.train(model, optimizers, training)
        right[name] = program.accuracy(model.eval(), test)
        tables[name] = model.bag.weight.detach()
    assert min(right.values()) > 0.8                # chance is 1 / 8
    assert right["sparseopt"] == pytest.approx(right["torch"], abs=0.02)
    assert right["replay"] == pytest.approx(right["dense"], abs=0.005)
    assert right["one"] == pytest.approx(right["torch"], abs=0.05)      # torch.optim.Adam adds its eps elsewhere
    assert (tables["sparseopt"] - tables["torch"]).abs().max() < 1e-4
    assert (tables["replay"] - tables["dense"]).abs().max() < 1e-4 < (tables["dense"] - tables["torch"]).abs().max()


def test_neural_collaborative_filtering_learns_with_all_optimizers_and_replay_is_dense_adam():
    import neural_collaborative_filtering as program

    ratings = program.Ratings(*program.generate(users=150, items=300, each=20))
    rates, tables = {}, {}
    for name in program.OPTIMIZERS:
        *_, (model, _) = program.train(ratings, name, epochs=3, lr=1e-2, batch_size=512, factors=16)
        rates[name] = program.hit_rate(model.eval(), ratings), program.hit_rate_of_all(model, ratings)
        tables[name] = model.tables["item_product"].weight.detach()
    assert min(of_100 for of_100, _ in rates.values()) > 0.3            # chance is 0.1
    assert all(of_all < of_100 for of_100, of_all in rates.values())
    assert rates["replay"] == pytest.approx(rates["dense"], abs=0.03)
    assert (tables["replay"] - tables["dense"]).abs().max() < 1e-4 < (tables["sparse"] - tables["dense"]).abs().max()


def test_the_held_out_item_is_the_last_by_time_and_no_other_item_was_rated():
    import neural_collaborative_filtering as program

    user, item, when = program.generate(users=20, items=150, each=10, seed=3)
    ratings = program.Ratings(user, item, when)
    for one in range(20):
        own = item[user == one][when[user == one].argsort()]
        assert ratings.held_out[one] == own[-1]
        assert set(ratings.item[ratings.user == one]) == set(own[:-1])
        assert not set(ratings.others[one]) & set(own)


def test_the_programs_run_from_the_command_line(capsys, monkeypatch):
    import neural_collaborative_filtering
    import novel_sentences

    monkeypatch.setattr(sys, "argv", ["novel_sentences.py", "--epochs", "1", "--rows", "5000"])
    novel_sentences.main()
    monkeypatch.setattr(sys, "argv", ["neural_collaborative_filtering.py", "--epochs", "1"])
    neural_collaborative_filtering.main()
    said = capsys.readouterr().out
    assert "2,880 sentences of 8 novels" in said
    assert "hit rate at 10 of all items" in said


def test_novels_are_read_without_the_words_of_the_licence(tmp_path):
    import novel_sentences

    (tmp_path / "a.txt").write_text("Of Gutenberg and its many rules. *** START OF THE BOOK ***\n"
                                    "It was a dark night. The rain fell in torrents, at times.\n"
                                    "*** END OF THE BOOK *** You may copy it or give it away.\n")
    (tmp_path / "SOURCE.txt").write_text("One two three four five six.")
    assert list(novel_sentences.read(tmp_path)) == [
        (["it", "was", "a", "dark", "night"], 0), (["the", "rain", "fell", "in", "torrents", "at", "times"], 0)]


def random_walk(rowptr, col, start, length, p, q):
    """The walks of pyg_lib and torch_cluster, which few machines have: both must be compiled for their torch."""
    walk = [start]
    for _ in range(length):
        first, after = rowptr[walk[-1]], rowptr[walk[-1] + 1]
        chosen = first + (torch.rand(len(start)) * (after - first)).long()
        walk.append(torch.where(after > first, col[chosen.clamp(max=len(col) - 1)], walk[-1]))
    return torch.stack(walk, dim=1)


def test_node2vec_tells_communities_apart_with_torch_and_with_one_import_changed(monkeypatch):
    models = pytest.importorskip("torch_geometric.nn.models.node2vec",
                                 reason="examples/node2vec.py needs PyTorch Geometric")
    if not (models.WITH_PYG_LIB or getattr(models, "WITH_TORCH_CLUSTER", False)):
        library = torch.library.Library("pyg", "FRAGMENT")
        library.define("random_walk(Tensor rowptr, Tensor col, Tensor start, int length, float p, float q) -> Tensor")
        library.impl("random_walk", random_walk, "CPU")
        monkeypatch.setattr(models, "WITH_PYG_LIB", True)
    import node2vec

    accuracy = {name: node2vec.train(name, nodes=350, epochs=3, dim=16, batch_size=16, lr=0.05)
                for name in ("torch", "sparseopt", "replay")}
    assert min(accuracy.values()) > 0.5             # chance is 1 / 7
    assert accuracy["sparseopt"] == pytest.approx(accuracy["torch"], abs=0.1)


@pytest.mark.filterwarnings("default")              # Lightning's own
def test_a_lightning_module_learns_with_gradients_clipped_and_torch_cannot_clip_them():
    pytest.importorskip("lightning", reason="examples/lightning_module.py needs Lightning")
    import lightning_module as program

    program.lightning.seed_everything(0)
    training, test = program.loaders_of(program.generate(), rows=20_000)
    quiet = dict(max_epochs=2, enable_progress_bar=False, enable_model_summary=False)
    trainer = program.trainer(**quiet)
    trainer.fit(program.NovelSentences(8, rows=20_000), training, test)
    assert trainer.callback_metrics["accuracy"] > 0.8
    with pytest.raises(NotImplementedError, match="SparseCPU"):
        program.trainer(**quiet, gradient_clip_val=1.0).fit(program.Stock(8, rows=20_000), training, test)
