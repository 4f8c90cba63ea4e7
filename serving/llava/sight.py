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
import transformers
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, LlavaOnevisionForConditionalGeneration

from serving.images import on_white
from serving.llava.images import to_pixels
from serving.llava.network import Network, to_tensor
from serving.llava.prompt import IMAGE
from serving.llava.tower import TowerConfig
from storage.errors import UsageError

_SETTINGS = "preprocessor_config.json"


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

    def settings(self) -> dict[str, dict[str, Any]]:
        """What an exported model's folder says of it, by file."""
        ...


def processor_of(network: Network, folder: Path) -> Processor:
    """The processor that belongs to a network; its settings lie in the model's folder, or follow from the network.

    Raises UsageError where they do neither.
    """
    vision: Any = network.config.vision_config
    if isinstance(vision, TowerConfig):
        return _Whole(vision.image_size)
    config: Any = network.config
    auto: Any = AutoImageProcessor
    if (folder / _SETTINGS).is_file() or (folder / "processor_config.json").is_file():
        return _Tiles(auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False), config)
    if not isinstance(network, LlavaOnevisionForConditionalGeneration):
        raise UsageError(f"{folder} has no {_SETTINGS}: copy the model's image processor there")
    # without torchvision transformers has the form that stands on Pillow, which in older versions is the only one
    kind = getattr(transformers, "LlavaOnevisionImageProcessorPil", None) or transformers.LlavaOnevisionImageProcessor
    grey, side = [0.5, 0.5, 0.5], int(vision.image_size)
    ready = kind(
        size={"height": side, "width": side},
        image_mean=grey,
        image_std=grey,
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    return _Tiles(ready, config)


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


class _Whole:
    """partita-mini's: the whole image at the tower's size."""

    def __init__(self, side: int) -> None:
        self._side = side

    def __call__(self, image: Image.Image) -> Pixels:
        return Pixels(to_tensor(np.stack([to_pixels(image, self._side)])), (image.height, image.width))

    def settings(self) -> dict[str, dict[str, Any]]:
        return {}


def _resizing_with_torch(ready: Any) -> Any:
    """The image processor `ready` with the resizing of its torchvision form, which vLLM has.

    Its Pillow form, which is what there is without torchvision, ends up to two grey levels away from that: enough to
    move an embedding by more than 1e-3.
    """
    with_pillow = ready.resize

    def resize(image: Any, size: Any, resample: Any = None, **more: Any) -> Any:
        mode = {2: "bilinear", 3: "bicubic"}.get(2 if resample is None else int(resample))
        if mode is None or image.dtype != np.uint8 or not (size.height and size.width):
            return with_pillow(image=image, size=size, resample=resample, **more)
        if image.shape[-2:] == (size.height, size.width):
            return image
        pixels = torch.from_numpy(np.ascontiguousarray(image))[None]
        return F.interpolate(pixels, (size.height, size.width), mode=mode, antialias=True)[0].numpy()

    ready.resize = resize
    return ready


class _Tiles:
    """transformers' own image processor, one image at a time."""

    def __init__(self, ready: Any, config: Any) -> None:
        self._ready, self._config = ready, config
        self._settings = {name: value for name, value in ready.to_dict().items() if name != "auto_map"}
        if type(ready).__name__.endswith("Pil"):
            self._ready = _resizing_with_torch(ready)

    def __call__(self, image: Image.Image) -> Pixels:
        values = self._ready(images=[on_white(image)], return_tensors="pt")["pixel_values"][0]
        return Pixels(values if values.ndim == 4 else values[None], (image.height, image.width))

    def settings(self) -> dict[str, dict[str, Any]]:
        config, vision = self._config, self._config.vision_config
        processor = {"image_token": IMAGE, "vision_feature_select_strategy": config.vision_feature_select_strategy}
        if config.model_type == "llava_onevision":
            processor |= {
                "processor_class": "LlavaOnevisionProcessor",
                "video_token": "<video>",
                "num_image_tokens": (vision.image_size // vision.patch_size) ** 2,
                "vision_aspect_ratio": config.vision_aspect_ratio,
            }
        else:
            processor |= {
                "processor_class": "LlavaProcessor",
                "patch_size": vision.patch_size,
                "num_additional_image_tokens": int(vision.model_type == "clip_vision_model"),
            }
        image = {**self._settings, "processor_class": processor["processor_class"]}
        return {_SETTINGS: image, "processor_config.json": processor}
