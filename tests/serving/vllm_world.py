"""What tests of `partita serve vllm` need: a model folder, the fake vLLM, free ports, and eyes for processes."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.serving.test_embedded import alive

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_vllm.py")


def until(so: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for something to be so; returns it."""
    deadline = time.monotonic() + seconds
    while not (it := so()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)
    return it


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def make_model(folder: Path, **about: Any) -> Path:
    """A folder that looks like an exported model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlavaOnevisionForConditionalGeneration"]}')
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "modules.json").write_text("[]")
    if about:
        (folder / "partita.json").write_text(json.dumps(about))
    return folder


@dataclass(frozen=True)
class World:
    """A folder with a model, the fake `bin/vllm`, and what the fakes were started with."""

    folder: Path
    port: int
    embed_port: int

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def vllm(self) -> Path:
        return self.folder / "bin" / "vllm"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a user who knows nothing of secrets, on a machine without a scheduler."""
        others = ("PARTITA_", "OPENAI_", "VLLM_", "CUDA_VISIBLE_DEVICES")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(others)}
        return {**kept, "PYTHONPATH": str(ROOT), "FAKE_VLLM": str(self.folder / "fakes")}

    def tell(self, name: str, misbehave: str) -> None:
        (self.folder / "fakes" / f"{misbehave}-{name}").touch()

    def untell(self, name: str, misbehave: str) -> None:
        (self.folder / "fakes" / f"{misbehave}-{name}").unlink()

    def started(self, name: str, number: int = 1) -> dict[str, Any]:
        """What the runner's n-th process was started with, once it has."""
        file = self.folder / "fakes" / f"{name}.{number}.json"
        about: dict[str, Any] = json.loads(until(lambda: file.exists() and file.read_text()))
        return about

    def left(self) -> list[int]:
        """Processes of fakes and engines that still run."""
        files = (self.folder / "fakes").glob("*.json")
        return [about[who] for f in files for about in [json.loads(f.read_text())] for who in ("pid", "engine")
                if alive(about[who])]  # fmt: skip

    def processes(self) -> list[int]:
        """Processes that name this world in their arguments: the command, guards, runners and engines."""
        found = []
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(self.folder).encode() in line.read_bytes():
                    found.append(int(line.parent.name))
            except OSError:
                continue
        return [pid for pid in found if alive(pid) and pid != os.getpid()]


def make_world(folder: Path) -> World:
    world = World(folder, *free_ports())
    make_model(world.model, name="mini-cards")
    (folder / "fakes").mkdir()
    world.vllm.parent.mkdir()
    world.vllm.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{FAKE}" "$@"\n')
    world.vllm.chmod(0o755)
    return world
