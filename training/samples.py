"""What a model is trained on: questions with the replies that it should give (METHOD 8). No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agents.questions import Question

Kind = Literal["caption", "assessment"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One question and the teacher's reply to it. Items are named by their content hashes."""

    question: Question
    reply: str
    """A caption without `<embedding>`, or reasoning that ends in a conclusion."""

    @property
    def kind(self) -> Kind:
        return "caption" if self.question.kind == "describe" else "assessment"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two captioned items and whether they are alike under the criterion: the embedder's unit of training."""

    first: Sample
    second: Sample
    same: bool | None
    """None where the teacher would not say: the captions are learnt all the same."""


Unit = Pair | Sample
"""What a batch is made of: pairs teach the embedder, assessments the agent."""


def to_json(units: Sequence[Unit]) -> str:
    """Units as JSON, for the file that a killed training goes on from."""
    return json.dumps([asdict(unit) for unit in units])


def from_json(told: str) -> list[Unit]:
    """Units as `to_json` wrote them."""
    return [_unit(one) for one in json.loads(told)]


def _unit(told: Mapping[str, Any]) -> Unit:
    if "question" in told:
        return _sample(told)
    return Pair(_sample(told["first"]), _sample(told["second"]), told["same"])


def _sample(told: Mapping[str, Any]) -> Sample:
    asked = told["question"]
    shown = tuple((str(label), str(item)) for label, item in asked["items"])
    return Sample(Question(asked["kind"], asked["instruction"], shown, asked["attempt"]), told["reply"])
