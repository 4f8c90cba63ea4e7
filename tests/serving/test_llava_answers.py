"""What the shipped model answers about fresh renders. In this room's tests because serving is what is measured."""

from __future__ import annotations

import numpy as np
import pytest

from agents.conclusions import Conclusion, read_conclusions
from agents.prompt_sets import shipped_set
from agents.questions import Question, describe, membership
from serving.llava import MINI, LlavaQwen2
from training.mini.conversations import CRITERIA
from training.mini.evaluate import evaluate, fresh_images
from training.replies import describe_reply
from training.world import Kind

_KIND: dict[str, Kind] = {"suit": "cards", "rank": "cards", "species": "fruit", "color": "fruit"}
SEED = 31337


@pytest.fixture(scope="module")
def model() -> LlavaQwen2:
    return LlavaQwen2.load(MINI, threads=1)


@pytest.fixture(scope="module")
def images() -> dict[Kind, tuple[list[str], list[dict[str, str]]]]:
    return {kind: fresh_images(kind, 50, SEED) for kind in ("cards", "fruit")}


def asked(question: Question, urls: list[str]) -> list[dict[str, object]]:
    return question.messages(lambda number: {"type": "image_url", "image_url": {"url": urls[int(number)]}})


@pytest.mark.parametrize("criterion", CRITERIA)
def test_captions(
    model: LlavaQwen2, images: dict[Kind, tuple[list[str], list[dict[str, str]]]], criterion: str
) -> None:
    urls, labels = images[_KIND[criterion]]
    chats = [asked(describe(shipped_set(criterion), str(i)), urls) for i in range(len(urls))]
    told = [g.text for g in model.generate(chats, 64)]
    right = np.mean([t == describe_reply(criterion, label[criterion]) for t, label in zip(told, labels, strict=True)])
    assert right >= (0.92 if criterion == "rank" else 0.96)


def test_verdicts_and_graphs(model: LlavaQwen2) -> None:
    measured = evaluate(model, 16, SEED, lambda done, total, line: None, speed=False)
    for kind in ("membership", "merge"):
        assert np.mean(list(measured[kind].values())) >= 0.95
    for graph in measured["graph"].values():
        assert graph["pairs joined"] >= 0.95
        assert graph["pairs kept apart"] >= 0.95


def test_several_candidates_get_their_conclusions_in_order(
    model: LlavaQwen2, images: dict[Kind, tuple[list[str], list[dict[str, str]]]]
) -> None:
    urls, labels = images["cards"]
    suits = [label["suit"] for label in labels]
    same = [i for i, s in enumerate(suits) if s == suits[0]]
    other = [i for i, s in enumerate(suits) if s != suits[0]]
    candidates = [same[2], other[0], other[1], same[3], other[2]]
    question = membership(shipped_set("suit"), [str(i) for i in same[:2]], [str(i) for i in candidates])
    reply = model.generate([asked(question, urls)], 256)[0]
    verdict = read_conclusions(reply.text, expected=question.conclusions)
    assert verdict.conclusions == tuple(Conclusion.YES if suits[i] == suits[0] else Conclusion.NO for i in candidates)
    assert reply.finish_reason == "stop"
