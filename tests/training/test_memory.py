"""Whether the memory will suffice is told from config.json alone, in words that say what to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

from serving.llava import MINI
from storage.errors import UsageError
from tests.serving import tiny
from training import memory
from training.learner import Learner
from training.memory import check_memory, config_of, free_memory, needed
from training.recipe import Recipe, read_recipe

GB = 1e9


@pytest.fixture(scope="module")
def seven_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA-OneVision over Qwen2-7B: its settings, and not one weight."""
    text = Qwen2Config(
        vocab_size=152128, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=26, num_attention_heads=16, image_size=384,
        patch_size=14, vision_use_head=False,
    )  # fmt: skip
    grid = [[384 * high, 384 * wide] for high in range(1, 7) for wide in range(1, 7)]
    folder = tmp_path_factory.mktemp("models") / "seven-b"
    LlavaOnevisionConfig(vision_config=vision, text_config=text, image_grid_pinpoints=grid).save_pretrained(str(folder))
    return folder


def test_what_seven_billion_weights_need(seven_b: Path) -> None:
    config = config_of(seven_b)
    assert config is not None
    lora = needed(config, Recipe(micro_batch=4), bfloat16=True)
    assert 15.5 * GB < lora.frozen < 16.5 * GB  # 8.03 billion weights, two bytes each
    assert 22 * GB < lora.trained < 26 * GB  # embeddings, output head, projector and LoRA: 1.3 billion, 18 bytes each
    whole = needed(config, Recipe(rank=0), bfloat16=True)
    assert whole.frozen == 0
    assert 140 * GB < whole.trained < 150 * GB
    small = needed(config, Recipe(micro_batch=1), bfloat16=True)
    assert (small.frozen, small.trained) == (lora.frozen, lora.trained)
    assert small.activations == pytest.approx(lora.activations / 4, rel=0.01)
    kept = needed(config, Recipe(micro_batch=4, gradient_checkpointing=False), bfloat16=True)
    assert kept.activations > 3 * lora.activations
    assert needed(config, Recipe(), bfloat16=True, processes=2).trained > lora.trained


def test_too_little_memory_is_said_before_anything_is_read(
    seven_b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free(gigabytes: float) -> None:
        monkeypatch.setattr(memory, "free_memory", lambda _: int(gigabytes * GB))

    def picture(_: str) -> Any:
        raise AssertionError

    free(70)
    with pytest.raises(UsageError, match=r"takes about [\d.,]+ GB .* 70.0 GB free: set `micro_batch: \d`"):
        Learner(seven_b, Recipe(precision="bfloat16", micro_batch=4), tmp_path, picture)
    free(20)
    with pytest.raises(UsageError, match="smaller base model or a device with more memory"):
        Learner(seven_b, Recipe(precision="bfloat16"), tmp_path, picture)
    config = config_of(seven_b)
    assert config is not None
    free(needed(config, Recipe(micro_batch=2), bfloat16=True).total / GB + 1)
    with pytest.raises(UsageError, match=r"set `gradient_checkpointing: true` and `micro_batch: 2`"):
        check_memory(seven_b, Recipe(micro_batch=4, gradient_checkpointing=False), torch.device("cpu"), bfloat16=True)
    with pytest.raises(UsageError, match=r"set `rank: 64`"):
        check_memory(seven_b, Recipe(rank=0), torch.device("cpu"), bfloat16=True)
    check_memory(seven_b, Recipe(micro_batch=2), torch.device("cpu"), bfloat16=True)


def test_every_form_of_a_folder_is_told(tmp_path: Path) -> None:
    recipe = read_recipe(None, small=True)
    mini = config_of(MINI)
    assert mini is not None
    need = needed(mini, recipe, bfloat16=False)
    assert 80e6 < need.trained < 95e6  # 5.4 million weights and a head as wide as a new one's
    base = tiny.published(tmp_path / "base")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "adapter_config.json").write_text("{}")
    (checkpoint / "partita.json").write_text(json.dumps({"base": "../base"}))
    for folder in (base, checkpoint):
        config = config_of(folder)
        assert config is not None
        assert 0 < needed(config, Recipe(), bfloat16=False).total < GB
    assert config_of(tmp_path) is None
    assert (free_memory(torch.device("cpu")) or GB) > 1e8
