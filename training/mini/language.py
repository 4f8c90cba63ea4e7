"""Stage 2: the language model learns to describe, to compare and to conclude, on features of the frozen tower."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, Qwen2Config

from agents.conclusions import Conclusion, read_conclusions
from agents.prompt_sets import QuestionKind, shipped_names, shipped_set
from serving.llava.network import greedy, input_vectors, new_model, project, to_tensor
from serving.llava.prompt import EMBEDDING, Prompt, Vocabulary, build_prompt, with_embedding
from serving.llava.tower import Tower
from training.checkpoint import load_checkpoint
from training.descent import Descent, groups_of
from training.mini.config import MiniConfig
from training.mini.conversations import CRITERIA, Conversations, Sample, any_words
from training.mini.shards import ATTRIBUTES, ShardStream, views
from training.mini.stage import Averages, Report, Stage
from training.mini.vision import AttributeHeads, new_tower
from training.replies import NOTHING
from training.world import Purpose

_PIECE = 12
_FOLLOWS = re.compile(r"\bso (?:the cluster is )?([^.]+)(?=\.)|\bThey (agree|differ)")
"""What in a reply follows from the words before it."""
KINDS: tuple[QuestionKind, ...] = ("describe", "membership", "merge")


@dataclass(frozen=True)
class Seen:
    """Images as the tower sees them."""

    features: Tensor
    """(n, tokens, tower width) float32."""
    attributes: np.ndarray
    """(n, 5), see ATTRIBUTES."""

    def part(self, begin: int, end: int | None) -> Seen:
        return Seen(self.features[begin:end], self.attributes[begin:end])


@torch.inference_mode()
def look(tower: Tower, images: np.ndarray) -> Tensor:
    """Tower tokens of images (n, S, S, 3), in pieces."""
    tower.train(False)
    return torch.cat(
        [tower(to_tensor(images[at : at + 64])).last_hidden_state for at in range(0, len(images), 64)]
    ).clone()


def seen_images(tower: Tower, config: MiniConfig, out: Path, report: Report) -> tuple[Seen, Seen]:
    """Training images of the language stream and, after them, held-out ones (a tenth, at most config.held_out), looked
    at once. Those held out are clean: of a wild card nobody may be able to tell the rank."""
    path = out / "features.npz"
    held = min(config.held_out, config.language_images // 10)
    total = config.language_images - held
    if not path.exists():
        features: list[Tensor] = []
        attributes: list[np.ndarray] = []
        size = min(config.shard, total)
        with ShardStream(
            out / "language-shards", Purpose.LANGUAGE, config.seed, size, config.image_size, ahead=2
        ) as stream:
            for number in range(-(-total // size)):
                images, told = stream.get(number)
                kept = min(size, total - number * size)
                features.append(look(tower, images[:kept]))
                attributes.append(told[:kept])
                stream.drop(number)
                report(number * size + kept, config.language_images, "looking at images")
        images, told = views(Purpose.LANGUAGE, config.seed, 2 * config.language_images, held, config.image_size, wild=0)
        features.append(look(tower, images))
        attributes.append(told)
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            np.savez(file, features=torch.cat(features).half().numpy(), attributes=np.concatenate(attributes))
        draft.replace(path)
    with np.load(path) as file:
        whole = Seen(torch.from_numpy(file["features"].astype(np.float32)), file["attributes"])
    return whole.part(0, total), whole.part(total, None)


def vocabulary(config: MiniConfig, out: Path) -> Vocabulary:
    """The tokenizer, trained on drawn conversations, or read back from `out`."""
    path = out / "tokenizer.json"
    if not path.exists():
        rng = np.random.default_rng([config.seed, 31])
        attributes = np.stack([rng.integers(1, len(names), 2000) for names in ATTRIBUTES.values()], 1)
        attributes[:1000, :2], attributes[1000:, 2:4] = 0, 0
        conversations = Conversations(attributes, config)
        drawn = [conversations.draw(rng) for _ in range(6000)]
        texts = [
            text for s in drawn for text in (s.question.instruction, s.reply, *(label for label, _ in s.question.items))
        ]
        # What other criteria are asked by becomes few tokens too: such a model may be trained for them later.
        texts += [shipped_set(name).instruction(kind) for name in shipped_names() for kind in KINDS]
        texts += [f" {word}" for words in any_words() for word in words]
        made = Vocabulary.train(sorted({*texts, "user\n", "assistant\n", "system\n"}), config.vocabulary)
        made.tokenizer.save(str(path.with_suffix(".draft")))
        path.with_suffix(".draft").replace(path)
    return Vocabulary.load(path)


def new_language_model(config: MiniConfig, tower: Tower, words: Vocabulary) -> LlavaForConditionalGeneration:
    """The whole model with the trained tower and an untrained language model (initialisation: MODEL-NOTES)."""
    torch.manual_seed(config.seed + 1)
    text = Qwen2Config(
        vocab_size=len(words), hidden_size=config.text_width, num_hidden_layers=config.text_layers,
        intermediate_size=config.text_inner,
        num_attention_heads=config.text_heads, num_key_value_heads=config.text_heads, max_position_embeddings=4096,
        initializer_range=0.06, bos_token_id=None, eos_token_id=words.end,
        pad_token_id=words.pad, tie_word_embeddings=False,
    )  # fmt: skip
    model = new_model(tower.config, text, words.image)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    for layer in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model.requires_grad_(False)


def language_parts(model: LlavaForConditionalGeneration) -> dict[str, nn.Module]:
    """What this stage trains: everything but the tower."""
    return {
        "projector": model.model.multi_modal_projector,
        "language": model.model.language_model,
        "lm_head": model.lm_head,
    }


def embedding_prompt(sample: Sample, words: Vocabulary, config: MiniConfig, description: str | None = None) -> Prompt:
    """The prompt whose last token is <embedding>, as the server builds it for an embedding request."""
    said = {"role": "assistant", "content": f"{description if description is not None else sample.reply} {EMBEDDING}"}
    return build_prompt(with_embedding([*sample.messages(), said]), words, config.image_tokens)


class Lesson:
    """Turns samples into padded tensors."""

    def __init__(self, words: Vocabulary, config: MiniConfig) -> None:
        self.words, self.config = words, config
        self.weights = torch.ones(len(words))
        for word in [v for c in CRITERIA for v in ATTRIBUTES[c][1:]] + [NOTHING, "YES", "NO"]:
            self.weights[list(words.encode(" " + word))] = config.value_weight
        self.verdicts = torch.tensor([words.encode(f" {word}")[0] for word in ("agree", "differ")])
        self.weights[self.verdicts] = config.verdict_weight

    def batch(self, samples: list[Sample]) -> tuple[Tensor, Tensor, list[int]]:
        """Ids (n, longest), padded on the right; loss weights of the *next* token (n, longest - 1); images in order.

        The weights of a conversation add up to 1, however long its reply is.
        """
        rows: list[list[int]] = []
        starts: list[int] = []
        images: list[int] = []
        for number, sample in enumerate(samples):
            prompt = build_prompt(sample.messages(), self.words, self.config.image_tokens)
            if sample.agree is None and number % 2:
                # After <embedding> the value is asked again: so the state there, which METHOD 2 reads, holds it.
                # The token itself is no target (below): the server appends it, the model never writes it.
                told = self.words.encode(f" {sample.value}")[0]
                rows.append([*embedding_prompt(sample, self.words, self.config).ids, told])
            else:
                rows.append([*prompt.ids, *self.words.encode(sample.reply), self.words.end])
            starts.append(len(prompt.ids))
            images += [int(url.removeprefix("render:")) for url in prompt.image_urls]
        ids, weights = self._padded(rows, starts)
        weights[ids == self.words.embedding] = 0.0
        return ids, (weights / weights.sum(1, keepdim=True))[:, 1:], images

    def drill(self, replies: list[str]) -> tuple[Tensor, Tensor]:
        """Ids and weights as `batch` for bare replies: weight only on the common values and on `agree` or `differ`."""
        opening = [self.words.start, *self.words.encode("assistant\n")]
        rows = [[*opening, *self.words.encode(reply)] for reply in replies]
        ids, weights = self._padded(rows, [len(opening)] * len(rows))
        for row, reply in enumerate(replies):
            spans = [match.span(match.lastindex or 0) for match in _FOLLOWS.finditer(reply)]
            for place, (begin, end) in enumerate(self.words.tokenizer.encode(reply, add_special_tokens=False).offsets):
                if not any(begin < last and end > first for first, last in spans):
                    weights[row, len(opening) + place] = 0.0
        return ids, (weights / weights.sum(1, keepdim=True))[:, 1:]

    def _padded(self, rows: list[list[int]], starts: list[int]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.words.pad)
        weights = torch.zeros(len(rows), longest)
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            ids[i, : len(row)] = torch.tensor(row)
            weights[i, start : len(row)] = self.weights[ids[i, start : len(row)]]
        return ids, weights


def train_language(
    config: MiniConfig, out: Path, tower: Tower, seen: Seen, report: Report
) -> LlavaForConditionalGeneration:
    """Train projector and language model, or go on from the checkpoint in `out`."""
    words = vocabulary(config, out)
    model = new_language_model(config, tower, words)
    parts = language_parts(model)
    for part in parts.values():
        part.requires_grad_(True)
    groups = groups_of((p for m in parts.values() for p in m.parameters()), 0.01)
    stage = Stage(config, "language", out, parts, Descent(groups, config.language_rate, betas=(0.9, 0.98), clip=1.0))
    conversations, lesson = Conversations(seen.attributes, config), Lesson(words, config)
    averages = Averages()

    def backward(ids: Tensor, due: Tensor, vectors: Tensor, of: int, comparison: str) -> Tensor:
        """Backward pass of a piece of a batch of `of` conversations; the loss (n,) of each."""
        hidden = model.model.language_model(inputs_embeds=vectors, use_cache=False).last_hidden_state
        asked = due > 0
        logits, truth = model.lm_head(hidden[asked]), ids[:, 1:][asked]
        losses = torch.zeros_like(due)
        losses[asked] = F.cross_entropy(logits.float(), truth, reduction="none") * due[asked]
        (losses.sum() / of).backward()  # type: ignore[no-untyped-call]
        at = torch.isin(truth, lesson.verdicts)
        if at.any():
            averages.follow(comparison, float((logits[at].argmax(1) == truth[at]).float().mean()))
        return losses.detach().sum(1)

    def learn(step: int) -> Averages:
        rng = np.random.default_rng([config.seed, int(Purpose.LANGUAGE), step])
        samples = [conversations.draw(rng) for _ in range(config.language_batch)]
        # Pieces of conversations of similar length, so that little is padding.
        samples.sort(key=lambda s: (len(s.question.items), len(s.question.instruction)))
        for at in range(0, len(samples), _PIECE):
            piece = samples[at : at + _PIECE]
            ids, due, images = lesson.batch(piece)
            features = seen.features[images]
            noise = torch.from_numpy(rng.normal(0, 0.1, features.shape).astype(np.float32))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                vectors = input_vectors(model, ids[:, :-1], project(model, features + noise))
                told = backward(ids, due, vectors, len(samples), "comparison")
            for sample, loss in zip(piece, told.tolist(), strict=True):
                averages.follow(sample.question.kind, loss)
        ids, due = lesson.drill([conversations.drill(rng) for _ in range(config.drill_batch)])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            backward(ids, due, model.get_input_embeddings()(ids[:, :-1]), config.drill_batch, "drill")
        return averages

    model.train()
    stage.run(learn, report)
    model.train(False).requires_grad_(False)
    return model


def answer(
    model: LlavaForConditionalGeneration, words: Vocabulary, config: MiniConfig, seen: Seen, samples: list[Sample]
) -> list[str]:
    """The model's replies to questions about seen images."""
    replies: list[str] = []
    for at in range(0, len(samples), 64):
        prompts = [build_prompt(s.messages(), words, config.image_tokens) for s in samples[at : at + 64]]
        images = [int(url.removeprefix("render:")) for p in prompts for url in p.image_urls]
        rows = greedy(
            model,
            [p.ids for p in prompts],
            project(model, seen.features[images]),
            [64] * len(prompts),
            words.end,
            words.pad,
        )
        replies += [words.decode(row) for row in rows]
    return replies


def measure_language(
    model: LlavaForConditionalGeneration, config: MiniConfig, words: Vocabulary, seen: Seen
) -> dict[str, float]:
    """Share of right replies on held-out images: captions by criterion, verdicts by criterion and kind of question."""
    conversations = Conversations(seen.attributes, config)
    rng = np.random.default_rng([config.seed, 41])
    samples: dict[str, list[Sample]] = {}
    each = max(4, config.held_out // 16)
    for criterion in CRITERIA:
        prompts = shipped_set(criterion)
        apply = [i for i, value in enumerate(conversations.values[criterion]) if value != NOTHING]
        if len({conversations.value(criterion, i) for i in apply}) < 2:
            continue
        samples[f"describe {criterion}"] = [conversations.describe(criterion, i, prompts) for i in apply[:each]]
        samples[f"membership {criterion}"] = [conversations.membership(criterion, rng, prompts) for _ in range(each)]
        samples[f"merge {criterion}"] = [conversations.merge(criterion, rng, prompts) for _ in range(each)]
    return {
        name: float(np.mean(judge(asked, answer(model, words, config, seen, asked)))) for name, asked in samples.items()
    }


def judge(samples: list[Sample], replies: list[str]) -> list[bool]:
    """Whether each reply is right: the right value in a description, the right conclusion otherwise."""
    return [
        reply == sample.reply if sample.agree is None else conclusion_is(reply, sample.agree)
        for sample, reply in zip(samples, replies, strict=True)
    ]


def conclusion_is(reply: str, agree: bool) -> bool:
    """Whether a reply ends with the right conclusion, and with one only."""
    return read_conclusions(reply).conclusions == (Conclusion.YES if agree else Conclusion.NO,)


def load_tower(config: MiniConfig, out: Path) -> Tower:
    """The trained tower of the vision stage. Raises FileNotFoundError when that stage has not been run to its end."""
    tower, heads = new_tower(config), AttributeHeads(config.tower_width)
    path = out / "vision.safetensors"
    if load_checkpoint(path, config.key("vision"), {"tower": tower, "heads": heads}) < config.vision_steps:
        raise FileNotFoundError(f"{path}: the vision stage is not finished; run it first (--stage vision)")
    tower.train(False)
    return tower
