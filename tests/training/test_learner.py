"""Training at a size that learns in seconds: what is trained, what it reads, how it goes on, what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from serving.llava import MINI, LlavaQwen2
from serving.llava.checkpoint import read_checkpoint
from serving.llava.export import export
from serving.llava.prompt import with_embedding
from storage.errors import UsageError
from tests.serving import tiny
from tests.training.lessons import RECIPE, assessment, caption, chat, image, pair, trained, units
from training.learner import STATE, Learner
from training.lesson import Lesson
from training.loop import AT_ONCE, batches, kind_of, pieces_of, samples_of
from training.losses import Losses
from training.pictures import Pictures, augmented
from training.recipe import read_recipe
from training.samples import Sample
from training.trainable import Trainable, read_trainable

torch.set_num_threads(1)
SMALL = read_recipe(None, True, {"epochs": 1, "batch": 4, "micro_batch": 4, "checkpoint_seconds": 1e9})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.published(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def whole(base: Path) -> Path:
    """A training that nobody disturbed."""
    out = base.parent / "whole"
    trained(base, out)
    return out


def embedded_in_training(model: Trainable, samples: Sequence[Sample]) -> tuple[torch.Tensor, np.ndarray]:
    """Losses and H of samples by the way of training."""
    pictures = Pictures(image, model.checkpoint.process, model.built_in, model.network.dtype)
    losses = Losses(model.checkpoint, Lesson(model.checkpoint.vocabulary, 1.0), bfloat16=False)
    model.train(False)
    with torch.no_grad():
        words, rows = losses.read(samples, {item: pictures(item) for s in samples for _, item in s.question.items})
    return words, rows.numpy()


def served(folder: Path | LlavaQwen2, samples: Sequence[Sample]) -> np.ndarray:
    model = LlavaQwen2.load(folder) if isinstance(folder, Path) else folder
    return model.embed([chat(sample, sample.reply) for sample in samples])


CAPTIONS = [caption(str(i)) for i in range(5)]


@pytest.mark.parametrize("kind", ["published", "partita-mini"])
def test_embeddings_in_training_and_in_serving_agree(base: Path, kind: str) -> None:
    """METHOD 2: to 1e-3, in a batch with padding and an assessment beside them."""
    folder, recipe = (base, RECIPE) if kind == "published" else (MINI, SMALL)
    model = read_trainable(folder, recipe, bfloat16=False)
    _, rows = embedded_in_training(model, [*CAPTIONS[:3], assessment([0, 3], 1), *CAPTIONS[3:]])
    np.testing.assert_allclose(served(folder, CAPTIONS), rows, atol=1e-3)


@pytest.mark.parametrize("kind", ["published", "partita-mini"])
def test_what_is_read_is_what_serving_builds(base: Path, kind: str) -> None:
    read = read_checkpoint(base if kind == "published" else MINI)
    model, lesson, words = LlavaQwen2(read), Lesson(read.vocabulary, 3.0), read.vocabulary
    for sample in [*CAPTIONS, assessment([0], 3), assessment([0, 3, 6], 2)]:
        ((prompt, seen),) = model._asked([chat(sample)])
        lengths = {item: len(part) for (_, item), part in zip(sample.question.items, seen, strict=True)}
        row = lesson.row(sample, lengths.__getitem__)
        assert row.ids[: len(prompt.ids)] == prompt.ids
        assert row.images == [item for _, item in sample.question.items]
        assert sum(row.weights) == pytest.approx(1)
        asked = [target for target, weight in zip(row.targets, row.weights, strict=True) if weight]
        assert asked == [*words.encode(sample.reply), words.end]
        begin = row.weights.index(next(filter(None, row.weights)))
        assert row.ids[: begin + 1] == prompt.ids
        assert row.ids[begin + 1 :] == [*asked[:-1], *([words.embedding] if sample.kind == "caption" else [])]
        if sample.kind == "caption":
            ((described, _),) = model._asked([with_embedding(chat(sample, sample.reply))])
            assert row.ids == described.ids
            assert row.embedding == len(described.ids) - 1


def test_the_words_of_a_conclusion_weigh_more() -> None:
    words = read_checkpoint(MINI).vocabulary
    sample = assessment([0], 1)
    row = Lesson(words, 5.0).row(sample, lambda _: 6)
    begin = next(i for i, weight in enumerate(row.weights) if weight)
    heavy = [i for i, weight in enumerate(row.weights) if weight > 1.5 * row.weights[begin]]
    assert row.weights[heavy[0]] == pytest.approx(5 * row.weights[begin])
    assert words.decode([row.targets[i] for i in heavy]) == "They differ. <CONCLUSION> NO"


def test_lora_trains_what_the_method_says_and_nothing_else(base: Path) -> None:
    model = read_trainable(base, RECIPE, bfloat16=False)
    names = set(model.parameters())
    lora = {name for name in names if "lora_" in name}
    assert len(lora) == 2 * 2 * 7  # A and B in two layers of seven linear ones
    assert all(".language_model." in name for name in lora)
    assert {name.replace("modules_to_save.default.", "") for name in names - lora} == {
        "network/lm_head.weight", "network/model.language_model.embed_tokens.weight",
        *(f"network/model.multi_modal_projector.linear_{i}.{part}" for i in (1, 2) for part in ("weight", "bias")),
        "head/norm.weight", "head/projection", "head/logit_scale",
    }  # fmt: skip


def test_frozen_weights_stay_and_trained_ones_move(base: Path, tmp_path: Path) -> None:
    learner = Learner(base, RECIPE, tmp_path, image)
    before = {name: tensor.clone() for name, tensor in learner._model.network.state_dict().items()}
    head = {name: tensor.clone() for name, tensor in learner._model.checkpoint.head.state_dict().items()}
    learner.train_epoch(units(4, 4))
    moved = learner._model.parameters()
    for name, tensor in learner._model.network.state_dict().items():
        assert torch.equal(tensor, before[name]) == (f"network/{name}" not in moved), name
    assert not any(torch.equal(t, head[name]) for name, t in learner._model.checkpoint.head.state_dict().items())


def test_what_is_new_follows_from_the_seed(base: Path) -> None:
    first = read_trainable(base, RECIPE, bfloat16=False).tensors()
    torch.rand(7)
    again = read_trainable(base, RECIPE, bfloat16=False).tensors()
    other = read_trainable(base, RECIPE.model_copy(update={"seed": 1}), bfloat16=False).tensors()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    changed = {name for name, tensor in first.items() if not torch.equal(tensor, other[name])}
    assert "head/projection" in changed
    assert any("lora_A" in name for name in changed)


def test_losses_fall_on_both_kinds(base: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 6, "gradient_checkpointing": True})
    learner = Learner(base, recipe, tmp_path, image)
    told = units(8, 8)
    before = learner.evaluate(told)
    means = [learner.train_epoch(told) for _ in range(recipe.epochs)]
    after = learner.evaluate(told)
    for name in ("caption", "alike", "assessment"):
        assert after[name] < 0.5 * before[name], name
        assert means[-1][name] < 0.7 * means[0][name], name
    assert set(after) == {"caption", "alike", "assessment"}


def test_an_epoch_of_captions_or_of_unlabelled_pairs_alone_will_do(base: Path, tmp_path: Path) -> None:
    learner = Learner(base, RECIPE, tmp_path, image)
    unlabelled = [replace(pair(0, 3), same=None), replace(pair(1, 2), same=None)]
    assert set(learner.train_epoch(unlabelled)) == {"caption"}
    assert set(learner.train_epoch([caption("0"), caption("1")])) == {"caption"}
    assert learner.evaluate(unlabelled).keys() == {"caption"}


def same_weights(folder: Path, other: Path) -> None:
    for name in ("adapter_model.safetensors", "head.safetensors", str(STATE)):
        mine, theirs = load_file(folder / name), load_file(other / name)
        assert mine.keys() == theirs.keys()
        for part, tensor in mine.items():
            assert torch.equal(tensor, theirs[part]), f"{name}: {part}"


@pytest.mark.parametrize(("every", "stop_at"), [(0, 2), (1e9, 6)])
def test_a_stopped_training_ends_as_if_it_had_not_been_stopped(
    base: Path, whole: Path, tmp_path: Path, every: float, stop_at: int
) -> None:
    """Stopped between checkpoints: the steps since the last one are done again."""
    recipe = RECIPE.model_copy(update={"checkpoint_seconds": every})
    with pytest.raises(KeyboardInterrupt):
        trained(base, tmp_path, recipe, stop_at)
    assert not (tmp_path / "adapter_model.safetensors").exists()
    trained(base, tmp_path, recipe)
    same_weights(tmp_path, whole)


def test_a_killed_process_ends_as_if_it_had_not_been_killed(base: Path, whole: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, torch; from pathlib import Path; from tests.training import lessons\n"
        "torch.set_num_threads(1)\n"
        "try: lessons.trained(Path(sys.argv[1]), Path(sys.argv[2]), stop_at=6)\n"
        "except KeyboardInterrupt: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(base), str(tmp_path)], check=False, env=_environment())
    assert done.returncode == -signal.SIGKILL
    trained(base, tmp_path)
    same_weights(tmp_path, whole)


def test_another_recipe_in_the_same_folder_is_refused(base: Path, whole: Path) -> None:
    with pytest.raises(UsageError, match="another --out"):
        Learner(base, RECIPE.model_copy(update={"rate": 1e-4}), whole, image)
    Learner(base, RECIPE.model_copy(update={"micro_batch": 1}), whole, image)  # that may change
    with pytest.raises(UsageError, match="holds the base model"):
        Learner(base, RECIPE, base, image)


def test_two_processes_learn_what_one_learns(base: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"dropout": 0.0, "epochs": 1, "micro_batch": 1})
    means = trained(base, tmp_path / "one", recipe)
    code = (
        "import json, sys, torch; from pathlib import Path; from tests.training import lessons\n"
        "from training.recipe import Recipe; from training.learner import Learner\n"
        "torch.set_num_threads(1)\n"
        "recipe = Recipe.model_validate_json(sys.argv[3])\n"
        "base, out = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "means = lessons.trained(base, out, recipe)\n"
        "learner = Learner(base, recipe, out, lessons.image)\n"
        "told = learner.evaluate(lessons.units(5, 2))\n"
        "asked = [lessons.caption(str(i)).question for i in range(3)]\n"
        "rows = learner.embed(asked, ['Red.', 'Blue.', 'Red.']).tolist()\n"
        "own = out.parent / ('main.json' if learner.main else 'other.json')\n"
        "own.write_text(json.dumps([means, told, rows]))\n"
        "learner.close()\n"
    )
    script = tmp_path / "two.py"
    script.write_text(code)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    argv = [str(script), str(base), str(tmp_path / "two"), recipe.model_dump_json()]
    done = subprocess.run(
        [*launch, *argv], env=_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("main", "other"))
    assert first == second
    assert first[0] == pytest.approx(means, rel=1e-4)
    alone = Learner(base, recipe, tmp_path / "one", image)
    assert first[1] == pytest.approx(alone.evaluate(units(5, 2)), rel=1e-3)
    asked = [sample.question for sample in CAPTIONS[:3]]
    np.testing.assert_allclose(first[2], alone.embed(asked, ["Red.", "Blue.", "Red."]), atol=1e-3)
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert max(float((tensor - two[name]).abs().max()) for name, tensor in one.items()) < 1e-3


def test_the_trained_folder_is_served_and_exported(base: Path, whole: Path, tmp_path: Path) -> None:
    learner = Learner(base, RECIPE, whole, image, criteria=("color",))
    questions = [sample.question for sample in CAPTIONS]
    own = learner.describe(questions, 12)
    rows = learner.embed(questions, own)
    told = [[*chat(sample), {"role": "assistant", "content": text}] for sample, text in zip(CAPTIONS, own, strict=True)]
    learner.save()
    assert json.loads((whole / "adapter_config.json").read_text())["base_model_name_or_path"] == "../base"
    assert {path.name for path in whole.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "partita.json", "tokenizer.json",
        "training",
    }  # fmt: skip
    exported = export(whole, tmp_path / "exported", dtype=torch.float32)
    for folder in (whole, exported.folder):
        model = LlavaQwen2.load(folder)
        assert (model.criteria, model.threshold) == (("color",), 0.6)
        assert model.beta == pytest.approx(learner.beta)
        np.testing.assert_allclose(model.embed(told), rows, atol=1e-3)
        assert [
            reply.text.removesuffix(" <embedding>") for reply in model.generate([chat(s) for s in CAPTIONS], 12)
        ] == own


def test_training_goes_on_from_an_earlier_trainings_folder(base: Path, whole: Path, tmp_path: Path) -> None:
    further = Learner(whole, RECIPE, tmp_path / "further", image)
    before = served(whole, CAPTIONS)
    rows = further.embed([sample.question for sample in CAPTIONS], [sample.reply for sample in CAPTIONS])
    np.testing.assert_allclose(rows, before, atol=1e-3)
    further.train_epoch(units(4, 2))
    further.save()
    after = further.embed([sample.question for sample in CAPTIONS], [sample.reply for sample in CAPTIONS])
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(served(tmp_path / "further", CAPTIONS), after, atol=1e-3)
    with pytest.raises(UsageError, match="serve export"):
        Learner(whole, RECIPE.model_copy(update={"rank": 8}), tmp_path / "other", image)


def test_tied_embeddings_come_apart(tmp_path: Path) -> None:
    folder = tiny.published(tmp_path / "tied", tie=True)
    learner = Learner(folder, RECIPE, tmp_path / "out", image)
    learner.train_epoch(units(2, 2))
    learner.save()
    rows = learner.embed([sample.question for sample in CAPTIONS], [sample.reply for sample in CAPTIONS])
    np.testing.assert_allclose(served(tmp_path / "out", CAPTIONS), rows, atol=1e-3)


@pytest.mark.parametrize("kind", ["published", "partita-mini"])
def test_a_whole_network_is_trained_and_served(base: Path, tmp_path: Path, kind: str) -> None:
    recipe = RECIPE.model_copy(update={"rank": 0}) if kind == "published" else SMALL
    folder = base if kind == "published" else MINI
    learner = Learner(folder, recipe, tmp_path, image, name="mine", criteria=("suit",))
    before = learner._model.tensors()
    before = {name: tensor.clone() for name, tensor in before.items()}
    means = learner.train_epoch(units(4, 3))
    assert set(means) == {"caption", "alike", "assessment"}
    still = {name for name, tensor in learner._model.tensors().items() if torch.equal(tensor, before[name])}
    if kind == "partita-mini":
        # The stem and the first three blocks see edges and spots, whatever the collection; no other tensor stays.
        first = tuple(
            f"network/model.vision_tower.trunk.{part}." for part in ("stem", "blocks.0", "blocks.1", "blocks.2")
        )
        assert still and still == {name for name in before if name.startswith(first)}
        assert json.loads((MINI / "partita.json").read_text())["format"] == 1
    else:
        assert not any("language_model" in name or "encoder" in name for name in still)
    learner.save()
    rows = learner.embed([sample.question for sample in CAPTIONS], [sample.reply for sample in CAPTIONS])
    np.testing.assert_allclose(served(tmp_path, CAPTIONS), rows, atol=1e-3)
    model = LlavaQwen2.load(export(tmp_path, tmp_path / "exported").folder)
    assert model.name == "mine"
    np.testing.assert_allclose(served(model, CAPTIONS), rows, atol=1e-3)


def test_a_stopped_training_of_partita_mini_ends_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"checkpoint_seconds": 0})
    trained(MINI, tmp_path / "whole", recipe)
    with pytest.raises(KeyboardInterrupt):
        trained(MINI, tmp_path / "stopped", recipe, 2)
    trained(MINI, tmp_path / "stopped", recipe)
    mine, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_notes_are_found_again(base: Path, tmp_path: Path) -> None:
    learner = Learner(base, RECIPE, tmp_path, image)
    learner.notes["best"] = 0.25
    learner.keep()
    assert Learner(base, RECIPE, tmp_path, image).notes == {"best": 0.25}


def test_a_draft_that_is_whole_takes_its_place_at_the_next_start(base: Path, tmp_path: Path) -> None:
    learner = Learner(base, RECIPE, tmp_path, image)
    learner.save()
    (tmp_path / ".ready").mkdir()
    (tmp_path / "partita.json").rename(tmp_path / ".ready" / "partita.json")
    (tmp_path / ".draft-dead").mkdir()
    learner = Learner(base, RECIPE, tmp_path, image)
    assert (tmp_path / "partita.json").is_file() and not (tmp_path / ".ready").exists()
    assert (tmp_path / ".draft-dead").exists()  # another process might be writing it
    learner.save()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_bfloat16_products_learn_too(base: Path, tmp_path: Path) -> None:
    learner = Learner(base, RECIPE.model_copy(update={"precision": "bfloat16"}), tmp_path, image)
    assert {p.dtype for p in learner._model.parameters().values()} == {torch.float32}
    assert learner._model.network.dtype == torch.bfloat16
    first = learner.train_epoch(units(4, 4))
    assert learner.train_epoch(units(4, 4))["caption"] < first["caption"]
    assert np.linalg.norm(learner.embed([CAPTIONS[0].question], ["Red."])) == pytest.approx(1, abs=1e-4)


def test_batches_are_of_one_kind_and_follow_from_the_seed() -> None:
    told = units(10, 23)
    made = batches(told, 8, 3, 1)
    assert [{kind_of(unit) for unit in batch} for batch in made] == [
        {kind} for kind in ("assessment", "pair", "assessment", "pair", "assessment")
    ]
    assert [len(batch) for batch in made] == [8, 5, 8, 5, 7]
    assert made == batches(told, 8, 3, 1) != batches(told, 8, 3, 2)
    assert sorted(map(repr, told)) == sorted(repr(unit) for batch in made for unit in batch)


def test_a_micro_batch_is_cut_by_the_images_that_it_shows() -> None:
    long = [assessment(list(range(9)), 30)] * 20
    told = [*units(20, 0), *long, assessment(list(range(90)), 91)]
    made = pieces_of(told, 32)
    assert [unit for piece in made for unit in piece] == told
    assert [len(piece) for piece in made] == [22, 6, 6, 6, 1]
    shown = [sum(len(sample.question.items) for unit in piece for sample in samples_of(unit)) for piece in made]
    assert max(shown[:-1]) <= AT_ONCE < shown[-1]
    assert [len(piece) for piece in pieces_of(units(5, 0), 2)] == [2, 2, 1]
    assert pieces_of([], 4) == []


def test_kept_pixels_are_what_serving_sees(base: Path) -> None:
    for folder in (base, MINI):
        read = read_checkpoint(folder)
        pictures = Pictures(image, read.process, folder == MINI, torch.float32)
        for item in ("1", "2"):
            for _ in range(2):
                assert torch.equal(pictures(item).values, read.process(image(item)).values)


def test_augmented_images_differ_and_follow_from_the_seed() -> None:
    read = read_checkpoint(MINI)
    given = [read.process(image(str(i))) for i in range(3)]

    def drawn(seed: int) -> list[torch.Tensor]:
        return [one.values for one in augmented(given, torch.Generator().manual_seed(seed))]

    first, again, other = drawn(1), drawn(1), drawn(2)
    for a, b, c, plain in zip(first, again, other, given, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert a.shape == plain.values.shape
        assert float(a.abs().max()) <= 1


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
