"""Checkpoints of a training: one safetensors file, replaced atomically, that holds all that it needs to go on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from storage.errors import UsageError

_OPTIMIZER = "optimizer/"


class CheckpointError(UsageError):
    """A checkpoint belongs to another configuration, or can't be written or read."""


def save_checkpoint(
    path: Path, step: int, key: str, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer | None
) -> None:
    """Write modules, optimiser state and step number to `path`; whoever reads sees the old file or the new one."""
    tensors = {
        f"{name}/{part}": tensor.detach().clone()
        for name, module in modules.items()
        for part, tensor in module.state_dict().items()
    }
    if optimizer is not None:
        tensors |= moments_of(optimizer)
    write_tensors(path, tensors, {"step": str(step), "key": key})


def load_checkpoint(
    path: Path, key: str, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer | None = None
) -> int:
    """Fill modules and optimiser from `path`; the step to go on with, 0 when there is no checkpoint.

    Raises CheckpointError when the checkpoint was made with another configuration.
    """
    if (read := read_tensors(path, key)) is None:
        return 0
    tensors, about = read
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    if optimizer is not None:
        fill_moments(optimizer, tensors)
    return int(about["step"])


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Tensors, none of which share memory, and what is to be known of them. Raises CheckpointError where it can't be
    written."""
    draft = path.with_suffix(".draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, str(draft), metadata=dict(about))
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise CheckpointError(f"{path} can't be written ({error}): make room, and run the same command again") from None


def read_tensors(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """What `write_tensors` wrote; None when there is nothing.

    Raises CheckpointError when its `key` is another one, or the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            about = dict(file.metadata() or {})
            if about.get("key") != key:
                raise CheckpointError(f"{path} was made with another configuration: give another --out, or delete it")
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): delete it to begin anew") from None


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by `optimizer/PARAMETER/PART`; parameters are numbered in its order."""
    return {
        f"{_OPTIMIZER}{index}/{part}": torch.as_tensor(value).detach()
        for index, state in optimizer.state_dict()["state"].items()
        for part, value in state.items()
    }


def fill_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimiser the state that `moments_of` told."""
    state: dict[int, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        if full.startswith(_OPTIMIZER):
            _, index, part = full.split("/")
            state.setdefault(int(index), {})[part] = tensor
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)
    # The fused optimiser walks memory: moments must lie as their parameter does, which may be channels last.
    for parameter, moments in optimizer.state.items():
        for part, tensor in moments.items():
            if tensor.shape == parameter.shape:
                moments[part] = torch.empty_like(parameter).copy_(tensor)
