"""The whole path to a real vLLM: exported, served, asked, embedded, and a session of 60 items (docs/serving.md).

    PARTITA_VLLM=/path/to/vllm python -m pytest -m vllm

Without PARTITA_VLLM the `vllm` beside this Python or on PATH is taken. On a machine without a GPU it is vLLM's CPU
form that has to be there; the model is tiny either way.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serving.client import Endpoint
from serving.llava import LlavaQwen2
from serving.llava.export import export
from tests.serving import tiny
from tests.serving.test_export import QUESTIONS, described

VLLM = (
    os.environ.get("PARTITA_VLLM")
    or shutil.which("vllm", path=str(Path(sys.executable).parent))
    or shutil.which("vllm")
)
ROOT = Path(__file__).parents[2]
WITHOUT_GPU = () if torch.cuda.is_available() else ("--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192")
"""vLLM 0.32 on a CPU dies of a prompt in pieces that is sampled with a seed ("CPU Generator does not use offset")."""

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(VLLM is None, reason="no vLLM here: set PARTITA_VLLM to its command"),
]


@dataclass(frozen=True)
class Served:
    """A running pair of runners."""

    exported: Path
    options: dict[str, str]
    """Of the `partita run` that was printed."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment() -> dict[str, str]:
    ours = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not torch.cuda.is_available():
        ours = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", **ours}
    return ours


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("vllm")
    exported = export(tiny.ready_to_serve(folder), folder / "exported", dtype=torch.float32).folder
    command = [
        sys.executable, "-m", "partita", "serve", "vllm", str(exported), "--vllm", str(VLLM),
        "--port", str(free_port()), "--embed-port", str(free_port()), "--dtype", "float32", "--max-model-len",
        "4096", "--images", "8", "--logs", str(folder / "logs"), "--", "--enforce-eager", *WITHOUT_GPU,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=folder) as running:
        assert running.stdout is not None
        try:
            words = shlex.split(running.stdout.readline())
            assert words[:2] == ["partita", "run"], "the runners did not start: the log says why"
            yield Served(exported, dict(zip(words[5::2], words[6::2], strict=True)))
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(120)


async def test_replies(served: Served) -> None:
    """Four images in one question, interleaved with labels: the same prompt and the same words as ours."""
    ours = LlavaQwen2.load(served.exported)
    async with Endpoint(served.options["--endpoint"], model=served.options["--model"], api_key=None) as endpoint:
        for name, question in QUESTIONS.items():
            (mine,) = ours.generate([question], 12)
            reply = await endpoint.chat(question, key=name, max_tokens=12, temperature=0.0, seed=0)
            assert reply.prompt_tokens == mine.prompt_tokens, name
            assert " ".join(reply.text.split()) == mine.text, name


async def test_embeddings(served: Served) -> None:
    """METHOD 2: what the pooling runner gives is H(u), to 1e-3."""
    ours = LlavaQwen2.load(served.exported)
    url, model = served.options["--embed-endpoint"], served.options["--embed-model"]
    async with Endpoint(url, model=model, api_key=None) as endpoint:
        for name, question in QUESTIONS.items():
            messages = [*question, {"role": "assistant", "content": "Red. <embedding>"}]
            vector = await endpoint.embed_messages(messages, key=name)
            assert vector.values.shape == (24,)
            assert np.abs(vector.values - ours.embed([described(question)])[0]).max() < 1e-3, name


def partita(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "partita", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=cwd, check=False)


def test_a_whole_session(served: Served, tmp_path: Path) -> None:
    """60 items through agents that know nothing, but conclude as they should; then it is there to be looked at."""
    assert partita("examples", "cards", "--kind", "cards", "--count", "60", "--seed", "4", cwd=tmp_path).returncode == 0
    given = [word for option in served.options.items() for word in option]
    run = partita(
        "run", "cards", "--by", "suit", "--session", "s", "--max-tokens", "64", "--longest-side", "112", "--json",
        *given, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert result["status"] == "done"
    assert sum(cluster["size"] for cluster in result["clusters"]) == result["items"] == 60
    assert result["calls"]["describe"] == result["calls"]["embed"] == 60
    assert not result["failed_items"]
    rows = [json.loads(line) for line in partita("trace", "s", "--json", cwd=tmp_path).stdout.splitlines()]
    assert rows
    # the form is held to, but a sentence has no end that could be forced: a reply may run out of tokens
    assert sum(row["conclusion"] == "UNKNOWN" for row in rows) < len(rows) / 2
