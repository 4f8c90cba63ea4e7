"""Checkpoints of a training stage: one safetensors file, replaced atomically, that holds all a run needs to go on."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class CheckpointError(Exception):
    """A checkpoint belongs to another configuration."""


def save_checkpoint(
    path: Path, step: int, key: str, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer | None
) -> None:
    """Write weights, optimiser state and step number to `path`; whoever reads sees the old file or the new one."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        for part, tensor in module.state_dict().items():
            tensors[f"{name}/{part}"] = tensor.detach().clone().contiguous()
    if optimizer is not None:
        for index, state in optimizer.state_dict()["state"].items():
            for part, value in state.items():
                tensors[f"optimizer/{index}/{part}"] = torch.as_tensor(value).clone().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    save_file(tensors, str(draft), metadata={"step": str(step), "key": key})
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def load_checkpoint(
    path: Path, key: str, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer | None = None
) -> int:
    """Fill modules and optimiser from `path`; the step to go on with, 0 when there is no checkpoint.

    Raises CheckpointError when the checkpoint was made with another configuration.
    """
    if not path.exists():
        return 0
    with safe_open(str(path), "pt") as file:
        about = file.metadata()
        if about["key"] != key:
            raise CheckpointError(f"{path} was made with another configuration: give another --out, or delete it")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    if optimizer is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for full, tensor in tensors.items():
            if full.startswith("optimizer/"):
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
    return int(about["step"])
