"""How a model looks at images: pixels for the vision tower, and what the language model gets of them.

Models differ in how many tokens an image becomes: partita-mini's tower has a fixed number, LLaVA-OneVision cuts an
image into tiles by its shape. An image costs the same wherever it stands in a prompt, as in vLLM; transformers'
processor would cut it differently when it stands alone (nested lists of images), and is never asked that way here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, LlavaOnevisionForConditionalGeneration

from serving.llava.images import on_white, to_pixels
from serving.llava.network import Network, to_tensor
from serving.llava.tower import TowerConfig


@dataclass(frozen=True)
class Pixels:
    """One image as the tower takes it."""

    values: Tensor
    """(tiles, 3, S, S) float32."""
    size: tuple[int, int]
    """Height and width of the image before it was cut."""


class Processor(Protocol):
    """From an image to pixels: the part in which model families differ."""

    def __call__(self, image: Image.Image) -> Pixels: ...


def processor_of(network: Network, folder: Path) -> Processor:
    """The processor that belongs to a network; its settings lie in the model's folder."""
    vision: Any = network.config.vision_config
    if isinstance(vision, TowerConfig):
        side = vision.image_size
        return lambda image: Pixels(to_tensor(np.stack([to_pixels(image, side)])), (image.height, image.width))
    # Without torchvision this is the Pillow form; there is nothing else of the processor that we need.
    auto: Any = AutoImageProcessor
    ready = auto.from_pretrained(str(folder), local_files_only=True)

    def process(image: Image.Image) -> Pixels:
        values = ready(images=[on_white(image)], return_tensors="pt")["pixel_values"][0]
        return Pixels(values if values.ndim == 4 else values[None], (image.height, image.width))

    return process


def features(network: Network, images: Sequence[Pixels]) -> list[Tensor]:
    """What the language model gets of each image, (tokens, width); differentiable, for training and serving alike."""
    if not images:
        return []
    values = torch.cat([image.values for image in images]).to(network.device, network.dtype)
    if isinstance(network, LlavaOnevisionForConditionalGeneration):
        sizes = torch.tensor([image.size for image in images])
        found = network.model.get_image_features(values, image_sizes=sizes)
    else:
        found = network.model.get_image_features(values)
    return list(found.pooler_output)
