"""Questions under a criterion and the replies that partita-mini learns to give (no torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from agents.prompt_sets import PromptSet, shipped_names, shipped_set
from agents.questions import Question, describe, membership, merge
from serving.llava.prompt import CONCLUDE, CONCLUDED, Message
from training.mini.config import MiniConfig
from training.mini.shards import ATTRIBUTES
from training.replies import NOTHING, describe_reply, membership_reply, merge_reply

CRITERIA = ("suit", "rank", "species", "color")


@dataclass(frozen=True)
class Sample:
    """One question with its right answer. Images are named by their number in the set they were drawn from."""

    criterion: str
    question: Question
    reply: str
    agree: bool | None
    """The right verdict; None for a description."""
    value: str = ""
    """The value that a description names."""

    def messages(self) -> list[Message]:
        """The question as a chat, with `render:N` in place of the image data."""
        return list(
            self.question.messages(lambda number: {"type": "image_url", "image_url": {"url": f"render:{number}"}})
        )


class Conversations:
    """Draws questions about a set of images with known attributes."""

    def __init__(self, attributes: np.ndarray, config: MiniConfig) -> None:
        """`attributes` (n, 5) as in training.mini.shards."""
        self.config = config
        self.values: dict[str, list[str]] = {}
        self.places: dict[str, dict[str, np.ndarray]] = {}
        for column, (name, names) in enumerate(ATTRIBUTES.items()):
            if name in CRITERIA:
                told = [names[v] if v else NOTHING for v in attributes[:, column]]
                self.values[name] = told
                lookup = np.array(told)
                self.places[name] = {v: np.flatnonzero(lookup == v) for v in sorted(set(told))}

    def value(self, criterion: str, image: int) -> str:
        """The true value of an image under a criterion."""
        return self.values[criterion][image]

    def draw(self, rng: np.random.Generator, plain: bool = False) -> Sample:
        """A random sample; `plain` leaves the instruction as shipped, and asks of items which the criterion applies
        to."""
        criterion = str(rng.choice(CRITERIA, p=(0.2, 0.4, 0.2, 0.2)))
        prompts = shipped_set(criterion) if plain else reworded(criterion, rng, self.config.paraphrase_share)
        if rng.random() < self.config.caption_share:
            return self.describe(
                criterion, self._image(criterion, self._any(criterion, rng, 0.0 if plain else 0.05), rng), prompts
            )
        ask = self.membership if rng.random() < 0.5 else self.merge
        return ask(criterion, rng, prompts, representatives=int(rng.choice([1, 2, 3, 4], p=(0.15, 0.15, 0.5, 0.2))))

    def describe(self, criterion: str, image: int, prompts: PromptSet) -> Sample:
        """Describe one image."""
        value = self.value(criterion, image)
        return Sample(criterion, describe(prompts, str(image)), describe_reply(criterion, value), None, value)

    def membership(
        self, criterion: str, rng: np.random.Generator, prompts: PromptSet, representatives: int = 3, noise: bool = True
    ) -> Sample:
        """A balanced membership question with one candidate."""
        group, other = self._pair(criterion, rng)
        shown = self._side(criterion, group, representatives, rng, noise)
        candidate = self._image(criterion, other, rng)
        reply, agree = membership_reply([self.value(criterion, i) for i in shown], self.value(criterion, candidate))
        return Sample(criterion, membership(prompts, [str(i) for i in shown], [str(candidate)]), reply, agree)

    def merge(
        self, criterion: str, rng: np.random.Generator, prompts: PromptSet, representatives: int = 3, noise: bool = True
    ) -> Sample:
        """A balanced merge question; the second side may be smaller."""
        group, other = self._pair(criterion, rng)
        second = representatives if rng.random() < 0.7 else int(rng.integers(1, representatives + 1))
        sides = [
            self._side(criterion, group, representatives, rng, noise),
            self._side(criterion, other, second, rng, noise),
        ]
        if rng.random() < 0.5:
            sides.reverse()
        reply, agree = merge_reply(*([self.value(criterion, i) for i in side] for side in sides))
        a, b = ([str(i) for i in side] for side in sides)
        return Sample(criterion, merge(prompts, a, b), reply, agree)

    def drill(self, rng: np.random.Generator) -> str:
        """A reply about values at random: practice in comparing words, without a question.

        Half of them are about words that belong to no criterion of this world, so that a model which is trained by
        another criterion later has only to learn what to look at.
        """
        if rng.random() < 0.5:
            names = [_any_value(rng) for _ in range(int(rng.integers(2, 9)))]
        else:
            criterion = str(rng.choice(CRITERIA, p=(0.2, 0.4, 0.2, 0.2)))
            names = [v for v in self.places[criterion] if v != NOTHING] or [NOTHING]
        group = str(rng.choice(names))
        other = group if rng.random() < 0.5 else str(rng.choice(names))

        def side(value: str) -> list[str]:
            shown = [value] * int(rng.choice([1, 2, 3, 4], p=(0.2, 0.2, 0.4, 0.2)))
            if len(shown) >= 3 and rng.random() < self.config.noisy_share:
                shown[int(rng.integers(len(shown)))] = str(rng.choice(names))
            return shown

        return (
            membership_reply(side(group), other)[0] if rng.random() < 0.5 else merge_reply(side(group), side(other))[0]
        )

    def _any(self, criterion: str, rng: np.random.Generator, absent: float = 0.03) -> str:
        names = [v for v in self.places[criterion] if v != NOTHING]
        return NOTHING if NOTHING in self.places[criterion] and rng.random() < absent else str(rng.choice(names))

    def _pair(self, criterion: str, rng: np.random.Generator) -> tuple[str, str]:
        group = self._any(criterion, rng)
        if rng.random() < 0.5:
            return group, group
        others = [v for v in self.places[criterion] if v != group and v != NOTHING]
        return group, str(rng.choice(others)) if others else group

    def _image(self, criterion: str, value: str, rng: np.random.Generator) -> int:
        return int(rng.choice(self.places[criterion][value]))

    def _side(self, criterion: str, value: str, count: int, rng: np.random.Generator, noise: bool) -> list[int]:
        shown = [self._image(criterion, value, rng) for _ in range(count)]
        if noise and count >= 3 and rng.random() < self.config.noisy_share:
            others = [v for v in self.places[criterion] if v != value]
            if others:
                shown[int(rng.integers(count))] = self._image(criterion, str(rng.choice(others)), rng)
        return shown


@cache
def any_words() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Values of every shipped criterion, and the plain words of their instructions."""
    sets = [shipped_set(name) for name in shipped_names()[1:]]
    values = {value for prompts in sets for value in prompts.values}
    told = " ".join(prompts.instruction(kind) for prompts in sets for kind in ("describe", "membership", "merge"))
    return tuple(sorted(values)), tuple(sorted({word.lower() for word in re.findall(r"\b[A-Za-z]{3,}\b", told)}))


def _any_value(rng: np.random.Generator) -> str:
    values, words = any_words()
    if rng.random() < 0.3:
        return str(rng.choice(values))
    return " ".join(str(word) for word in rng.choice(words, int(rng.choice([1, 2], p=(0.7, 0.3)))))


_NAMES = {
    "suit": ("suit", "suits", "suit of the card", "card suit", "suit symbol"),
    "rank": (
        "rank",
        "ranks",
        "order",
        "number",
        "numbers",
        "rank of the card",
        "number on the card",
        "face value",
        "value of the card",
    ),
    "species": (
        "species",
        "kind of fruit",
        "type of fruit",
        "fruit",
        "fruits",
        "species of the fruit",
        "sort of fruit",
    ),
    "color": ("color", "colour", "colors", "colours", "color of the fruit", "colour of the fruit", "main colour"),
}
_ASK = {
    "describe": (
        "Describe the {0} in one sentence.",
        "What is the {0}?",
        "Describe the {0} in the image in detail.",
        "Name the {0} of the item.",
        "Tell me the {0} and nothing else.",
        "Look at the picture and describe the {0}.",
    ),
    "membership": (
        "Does the candidate belong with the representatives by {0}?",
        "Do the candidate and the representatives have the same {0}?",
        "Is the {0} of the candidate the same as that of the representatives?",
        "Judge by {0} only: does the candidate belong to the cluster?",
        "Group the items by {0}. Should the candidate join the cluster of the representatives?",
    ),
    "merge": (
        "Are cluster A and cluster B the same by {0}?",
        "Do the two clusters have the same {0}?",
        "Judge by {0} only: are the clusters one?",
        "Group the items by {0}. Should the two clusters be merged?",
    ),
}
_MORE = (
    "Ignore everything else.",
    "Ignore the background and the light.",
    "Look closely.",
    "Think step by step.",
    "Give your reason first.",
    "Say what each has, and whether they agree.",
    "Be careful.",
    "Answer briefly.",
)
_END = f"Then end with {CONCLUDE} YES {CONCLUDED} or {CONCLUDE} NO {CONCLUDED}."
_ENDS = (
    _END,
    f"End with {CONCLUDE} YES {CONCLUDED} or {CONCLUDE} NO {CONCLUDED}.",
    f"Conclude with {CONCLUDE} YES {CONCLUDED} or {CONCLUDE} NO {CONCLUDED}.",
)


def reworded(criterion: str, rng: np.random.Generator, share: float) -> PromptSet:
    """The shipped prompts of a criterion; in `share` of the cases cut, reworded, or the default set with the
    criterion in words."""
    shipped = shipped_set(criterion)
    draw = rng.random()
    if draw >= share:
        return shipped
    name = str(rng.choice(_NAMES[criterion]))
    if draw < share * 0.25:
        return shipped_set("default", str(rng.choice((name, f"the {name}"))))
    texts: dict[str, str] = {}
    for kind in ("describe", "membership", "merge"):
        if draw < share * 0.6:
            sentences = re.split(r"(?<=[.?])\s+", shipped.instruction(kind))
            kept = [s for s in sentences if s is sentences[0] or CONCLUDE in s or rng.random() < 0.5]
            words = (criterion, "colour") if criterion == "color" else (criterion,)
            swap = name if rng.random() < 0.5 else words[-1]
            texts[kind] = re.sub(rf"\b({'|'.join(words)})\b", swap, " ".join(kept))
        else:
            parts = [str(rng.choice(_ASK[kind])).format(name)]
            parts += [str(s) for s in rng.choice(_MORE, int(rng.integers(0, 3)), replace=False)]
            texts[kind] = " ".join([*parts, *([] if kind == "describe" else [str(rng.choice(_ENDS))])])
    return shipped.model_copy(update=texts)
