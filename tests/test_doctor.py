"""The doctor: faults that are planted are named, and healthy runs pass without a word."""

import json
import math
import types

import pytest

import zoo
from mmkeras import data, diagnosis
from zoo import _doctor
from zoo._cli import main
from zoo._doctor import one_batch

OPTIONS = {"preset": "tiny", "verbose": 0}


def train(out, name="fusion_classifier", source="scenes:240", **options):
    bag = {} if "text_encoder" in options or name == "captioner" else {"text_encoder": "bag"}
    return zoo.train(name, source, out=out / "run", **{**OPTIONS, **bag, **options})


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    # Where the text is missing now and then the picture is learned, too.
    return train(tmp_path_factory.mktemp("healthy"), epochs=6, modality_dropout=0.4)


@pytest.fixture
def weights(healthy):
    """The healthy run's weights may be spoiled: afterwards they are as they were."""
    before = healthy.model.get_weights()
    yield healthy.model
    healthy.model.set_weights(before)


# Faults by hand


@pytest.mark.parametrize(
    ("options", "chance"),
    [
        ({"loss": "clip"}, math.log(8)),
        ({"loss": "triplet", "margin": 0.3, "negatives": "sum"}, 2 * 7 * 0.3),  # twice the margin for each other row
        ({"loss": "triplet", "margin": 0.3, "negatives": "hardest"}, 2 * 0.3),
    ],
)
def test_the_loss_of_a_model_that_knows_nothing(options, chance):
    model = zoo.build("dual_encoder", preset="tiny", text_encoder="bag", **options)
    assert diagnosis.chances(model, 8) == {"loss": pytest.approx(chance, rel=1e-5)}
    assert list(diagnosis.stuck_losses({"loss": 0.9 * chance}, {"loss": chance})) == []
    (line,) = diagnosis.stuck_losses({"loss": 0.99 * chance}, {"loss": chance})
    assert f"{chance:.3f}: nothing has been learned" in line


def test_labels_that_are_guessed_cost_the_logarithm_of_their_number():
    assert diagnosis.chances(zoo.build("vqa", preset="tiny", num_classes=17), 8) == {
        "loss": pytest.approx(math.log(17))
    }
    several = diagnosis.chances(zoo.build("multitask", preset="tiny", num_classes=6), 8)
    assert several["category"] == pytest.approx(math.log(6))
    assert several["retrieval"] == pytest.approx(math.log(8))
    assert diagnosis.chances(zoo.build("autoencoder", preset="tiny"), 8) == {}


def test_a_model_that_does_not_learn_is_named(tmp_path):
    run = train(tmp_path, "dual_encoder", epochs=1, learning_rate=1e-9)
    faults = run.examine()[1]
    assert any("The loss `loss` is" in line and "nothing has been learned" in line for line in faults)


def test_embeddings_without_negatives_collapse_and_are_named(tmp_path):
    run = train(tmp_path, "dual_encoder", epochs=12, loss="l2", learning_rate=2e-2)
    assert any("embedding` is nearly the same for every row" in line for line in run.examine()[1])


def test_of_few_rows_nothing_is_said_about_the_modalities(healthy, monkeypatch):
    monkeypatch.setattr(_doctor, "NUM_ROWS", 10)
    monkeypatch.setattr(diagnosis, "useless_modalities", None)  # is not asked
    measured, (line,) = healthy.examine()
    assert "With 10 rows the validation split is too small" in line
    assert measured["accuracy"]["all"] > 0


def test_a_modality_alone_needs_no_rows_to_be_compared(tmp_path):
    run = train(tmp_path, source="scenes:80", epochs=1, modalities={"text": "text"})
    assert len(run.split("validation")) < _doctor.FEWEST_ROWS
    assert not any("validation split is too small" in line for line in run.examine()[1])


def test_a_modality_that_is_cut_off_is_dead(healthy, weights):
    kernel = next(w for w in weights.weights if "text_projection" in w.path and w.path.endswith("kernel"))
    kernel.assign(0 * kernel)
    measured, faults = healthy.examine()
    assert measured["share of the gradient"]["text"] < 1e-6
    assert any("The encoder of `text` gets 0.00% of the gradient" in line for line in faults)
    assert any("The model does not look at `text`" in line for line in faults)
    assert not any("encoder of `image`" in line or "look at `image`" in line for line in faults)


def manifest(folder, change=lambda i, row, split: row):
    """Rows of scenes as files; `change` may spoil them."""
    folder.mkdir()
    for name, split in data.open("scenes:240").splits.items():
        rows = []
        for i in range(len(split)):
            picture = folder / f"{name}-{i}.png"
            picture.write_bytes(split.cells("image")[i])
            row = {"image": picture.name, "text": split.cells("text")[i], "label": split.cells("label")[i]}
            rows.append(change(i, row, name))
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_test_rows_that_were_trained_on_are_counted_and_one_picture_for_all_rows_is_said(tmp_path):
    def change(i, row, split):
        return {**row, "image": "train-0.png", **({"text": known[i]} if split == "test" and i < 4 else {})}

    known = data.open("scenes:240").train.cells("text")
    faults = train(tmp_path, source=manifest(tmp_path / "data", change), epochs=1).examine()[1]
    assert any("4 of 30 rows of the test split are in the training split" in line for line in faults)
    assert any("`image` is the same in every row" in line for line in faults)


def test_pictures_of_other_rows_bring_nothing(tmp_path):
    def change(i, row, split):  # a picture that has nothing to do with the rest of its row
        return {**row, "image": row["image"].replace(f"-{i}.", f"-{(7 * i + 3) % 30}.")}

    run = train(tmp_path, source=manifest(tmp_path / "data", change), epochs=12)
    faults = run.examine()[1]
    assert any(line.startswith("`image` brings nothing") or "others harm" in line for line in faults)
    assert not any(line.startswith("`text` brings nothing") for line in faults)


def test_modalities_that_harm_or_bring_nothing():
    found = {"all": 0.8, "a alone": 0.9, "a shuffled": 0.3, "b alone": 0.3, "b shuffled": 0.7, "most frequent": 0.3}
    (line,) = diagnosis.useless_modalities(found, ["a", "b"])
    assert line.startswith("`a` alone is right in 90.0%, all modalities together in 80.0%: the others harm")
    found.update({"all": 0.9, "b shuffled": 0.9})
    (line,) = diagnosis.useless_modalities(found, ["a", "b"])
    assert line.startswith("`b` brings nothing: with another row's in its place 90.0% are right, with its own 90.0%")
    assert list(diagnosis.useless_modalities({**found, "b alone": 0.6}, ["a", "b"])) == []  # it says the same as a
    assert list(diagnosis.useless_modalities({**found, "b shuffled": 0.8}, ["a", "b"])) == []


# In training, and on the command line


def test_a_fault_is_said_once_while_training(tmp_path, capsys):
    train(tmp_path, "dual_encoder", epochs=5, loss="clip", learning_rate=1e-9, doctor=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines if "nothing has been learned" in line] == ["epoch 3"]


def test_the_command_says_what_it_found(healthy, capsys):
    assert main(["doctor", str(healthy.path)]) in (0, None)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("share of the gradient    image 0.")
    assert said[1].startswith("accuracy                 all ")
    assert said[2:] == ["No fault found."]


HEALTHY = {
    "tagger": {"epochs": 4}, "dual_encoder": {"epochs": 8}, "sentiment": {"epochs": 4}, "multitask": {"epochs": 8},
    "cross_modal": {"epochs": 4}, "autoencoder": {"epochs": 4}, "captioner": {"epochs": 4},
    "variational_autoencoder": {"epochs": 4}, "masked_autoencoder": {"epochs": 6},
    "few_shot": {"epochs": 4, "source": "scenes:600"},
    "domain_adversarial": {"epochs": 8, "source": "scenes:600"},
}  # fmt: skip


def check_healthy(name, out):
    options = HEALTHY[name]
    bag = {} if name == "captioner" else {"text_encoder": "cnn"}
    bag = {"text_encoder": "words"} if name == "masked_autoencoder" else bag
    run = train(out, name, **bag, **options)
    measured, faults = run.examine()
    assert faults == []
    assert sum(measured.get("share of the gradient", {"": 1.0}).values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_all_healthy_runs_pass_without_a_word(name, tmp_path):
    check_healthy(name, tmp_path)


def test_two_networks_against_each_other_are_not_looked_at():
    run = types.SimpleNamespace(model=zoo.build("conditional_gan", preset="tiny"), path="gan", name="conditional_gan")
    with pytest.raises(ValueError, match="models of one network. gan holds a run of `conditional_gan`"):
        one_batch(run, None)


def test_many_labels_have_no_accuracy(tmp_path):
    measured, _ = train(tmp_path, epochs=1, labels="many").examine()
    assert "accuracy" not in measured


def test_an_adversary_that_guesses_is_no_fault_and_its_domain_has_no_labels(tmp_path):
    run = train(tmp_path, "domain_adversarial", epochs=1, target_domain="hatched")
    assert diagnosis.chances(run.model, 8) == {"label_loss": pytest.approx(math.log(run.config.num_classes))}
    x, y = one_batch(run, run.split("validation"))
    told = diagnosis.told_rows(run.model, "label", y)
    assert 0 < told.sum() < len(told)
    right = (run.model(x)["label"].numpy().argmax(-1) == y["label"].numpy())[told].mean()
    assert run.examine()[0]["accuracy"]["all"] == pytest.approx(right)


def test_one_row_says_nothing_about_modalities(healthy):
    x, _ = one_batch(healthy, healthy.split("validation").take([0]))
    assert list(diagnosis.dead_modalities(healthy.model, x, ["image", "text"])) == []


def test_rows_without_their_picture_are_not_compared_by_their_text(tmp_path):
    def change(i, row, split):
        return {**row, **({"image": "", "text": "a red ring"} if i < 3 else {})}

    faults = train(tmp_path, source=manifest(tmp_path / "data", change), epochs=1, skip_bad=True).examine()[1]
    assert not any("are in the training split" in line for line in faults)
