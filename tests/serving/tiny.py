"""Tiny random LLaVA-Qwen2 models, in every form that a folder comes in: real classes, real files, no knowledge.

python -m tests.serving.tiny OUT      # a LoRA checkpoint in OUT/checkpoint, its base in OUT/base
"""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

from agents import questions
from agents.prompt_sets import shipped_set
from serving.llava.checkpoint import read_checkpoint, read_vocabulary
from serving.llava.network import EmbeddingHead, input_vectors
from serving.llava.prompt import END, QWEN_PAD, START, build_prompt
from serving.llava.sight import features

SIDE, PATCH, WIDTH, HEADS = 60, 14, 64, 2
"""Of images in pixels, which as with SigLIP so400m is no multiple of the patch, of a patch, of a state, of attention:
vLLM on a CPU wants heads of at least 32."""
GRID = [[60, 120], [120, 60], [120, 120]]
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 cuts text before BPE: here a newline joins the punctuation before it."""
_AGREE = "They agree. <CONCLUSION> YES </CONCLUSION>"
_TEXTS = [
    "user\nassistant\nsystem\nDescribe the colour of the fruit in the image in detail.\nItem:\nRepresentative 1:\n"
    "Representative 2:\nCandidate 1:\nCluster A, representative 1:\nCluster B, representative 2:\n"
    "The representatives are red. The candidate is blue.\nThey differ. <CONCLUSION> NO </CONCLUSION>",
] * 4


def tokenizer() -> Tokenizer:
    """A small BPE vocabulary that cuts text as Qwen2's does."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in (QWEN_PAD, START, END)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(_TEXTS, trainer)
    return made


def text_config(rows: int, **more: Any) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=rows, hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, max_position_embeddings=8192, bos_token_id=None, eos_token_id=2, pad_token_id=0,
        **{"tie_word_embeddings": False, **more},
    )  # fmt: skip


def vision_config() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=2, num_attention_heads=HEADS, image_size=SIDE,
        patch_size=PATCH, vision_use_head=False,
    )  # fmt: skip


def randomised(network: Any, seed: int, spread: float = 0.15) -> Any:
    """Weights large enough for prompts to matter."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            far = spread if parameter.ndim > 1 else spread / 3
            parameter.add_(torch.randn(parameter.shape, generator=drawn) * far)
    return network.train(False)


def published(folder: Path, *, tie: bool = False, spread: float = 0.15, spare: int = 0) -> Path:
    """A LLaVA-OneVision as transformers stores it, without `<image>` and `<embedding>` in its tokenizer.

    `spare` is how many rows of token embeddings have no entry.
    """
    words = tokenizer()
    text = text_config(words.get_vocab_size() + spare, tie_word_embeddings=tie)
    config = LlavaOnevisionConfig(
        vision_config=vision_config(), text_config=text, image_token_index=words.get_vocab_size(),
        video_token_index=words.get_vocab_size() + 1, image_grid_pinpoints=GRID, tie_word_embeddings=tie,
    )  # fmt: skip
    network = randomised(LlavaOnevisionForConditionalGeneration(config), 1, spread)
    network.save_pretrained(str(folder))
    words.save(str(folder / "tokenizer.json"))
    processor = {
        "image_processor_type": "LlavaOnevisionImageProcessor", "do_convert_rgb": True, "do_normalize": True,
        "do_pad": True, "do_rescale": True, "do_resize": True, "image_grid_pinpoints": GRID, "resample": 3,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255,
        "size": {"height": SIDE, "width": SIDE},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def single_tile(folder: Path) -> Path:
    """A LLaVA over SigLIP and Qwen2, an image one tile: llava-interleave's kind."""
    words = tokenizer()
    config = LlavaConfig(
        vision_config=vision_config(), text_config=text_config(words.get_vocab_size() + 8), image_seq_length=16,
        image_token_index=words.get_vocab_size(), vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    randomised(LlavaForConditionalGeneration(config), 2).save_pretrained(str(folder))
    words.save(str(folder / "tokenizer.json"))
    processor = {
        "image_processor_type": "SiglipImageProcessor", "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "resample": 3,
        "size": {"height": SIDE, "width": SIDE},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def checkpoint(folder: Path, base: Path, vocabulary: Tokenizer, rows: int, spread: float = 0.15) -> Path:
    """What training leaves of `base`: LoRA, the parts trained in full beside it, a trained head, the tokenizer.

    `rows` is the number of token embeddings with `<embedding>` among them, `spread` how far what was trained has moved.
    """
    network: Any = LlavaOnevisionForConditionalGeneration.from_pretrained(str(base))
    network.resize_token_embeddings(rows, mean_resizing=False)
    lora = LoraConfig(
        r=4, lora_alpha=16, target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        modules_to_save=["lm_head", "embed_tokens", "multi_modal_projector"],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers by an old name, and warns of tied weights
        adapted = randomised(get_peft_model(network, lora), 3, spread)
    adapted.save_pretrained(str(folder))
    head = head_of(WIDTH, 24)
    save_file({name: t.detach().clone() for name, t in head.state_dict().items()}, str(folder / "head.safetensors"))
    vocabulary.save(str(folder / "tokenizer.json"))
    about = {"format": 2, "name": "tiny", "base": "../" + base.name, "threshold": 0.6, "criteria": []}
    (folder / "partita.json").write_text(json.dumps(about))
    return folder


def taught(folder: Path, base: Path, steps: int = 300) -> Path:
    """`base` after a few lessons in form: it answers whatever it is asked in the words it should, and knows nothing.

    The lessons go the way of real ones: `build_prompt`, `features`, `input_vectors`, a loss on the reply.
    """
    read = read_checkpoint(base)
    network, words = read.network.requires_grad_(True), read.vocabulary
    noise = np.random.default_rng(6)
    lessons = []
    for set_, texts in itertools.product(("suit", "color"), range(3)):
        prompts = shipped_set(set_)
        asked = (
            (questions.describe(prompts, "0"), "A card. Red."),
            (questions.membership(prompts, ["0", "1", "2"][: texts + 1], ["3"]), _AGREE),
            (questions.merge(prompts, ["0", "1", "2"][: texts + 1], ["3", "4", "5"][: texts + 1]), _AGREE),
        )
        for question, reply in asked:
            pixels = [
                read.process(Image.fromarray(noise.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)))
                for _ in question.items
            ]
            with torch.no_grad():
                seen = torch.cat(features(network, pixels))
            each = len(seen) // len(pixels)
            messages = question.messages(lambda _: {"type": "image_url", "image_url": {"url": "data:"}})
            prompt = build_prompt(messages, words, each)
            lessons.append((prompt.ids, [*words.encode(reply), words.end], seen))
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    for step in range(steps):
        ids, reply, seen = lessons[step % len(lessons)]
        row = torch.tensor([ids + reply])
        vectors = input_vectors(network, row[:, :-1], seen)
        hidden = network.model.language_model(inputs_embeds=vectors, use_cache=False).last_hidden_state
        logits = network.lm_head(hidden[0, len(ids) - 1 :])
        loss = torch.nn.functional.cross_entropy(logits, row[0, len(ids) :])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save_pretrained(str(folder))
    words.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_bytes((base / "preprocessor_config.json").read_bytes())
    return folder


def head_of(width: int, out: int) -> EmbeddingHead:
    """A head whose norm is far from plain."""
    torch.manual_seed(5)
    head = EmbeddingHead(width, out)
    with torch.no_grad():
        head.norm.weight.copy_(1 + 0.5 * torch.randn(width))
        head.logit_scale.fill_(3.0)
    return head


def ready_to_serve(out: Path) -> Path:
    """A LoRA checkpoint whose model answers in the right form, in `out` beside its base."""
    base = taught(out / "base", published(out / "untaught", spread=0.03))
    vocabulary = read_vocabulary(base)
    rows = -(-len(vocabulary) // 64) * 64
    return checkpoint(out / "checkpoint", base, vocabulary.tokenizer, rows, spread=0.003)


if __name__ == "__main__":
    print(f"partita serve export {ready_to_serve(Path(sys.argv[1]))} {Path(sys.argv[1]) / 'exported'}")
