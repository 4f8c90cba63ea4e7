"""The built-in server as a child process: it answers, and it never outlives its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.client import Endpoint
from serving.embedded import embedded
from storage.errors import EndpointRefused, EndpointUnreachable, UsageError

FAKE = "tests.serving.fake_model"
ROOT = Path(__file__).parents[2]


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and that nobody waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_to_see(pid: int) -> bytes:
    """Arguments and environment, where the system shows them."""
    files = [Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ")]
    return b"".join(file.read_bytes() for file in files if file.exists())


async def test_it_answers_who_has_the_key_and_ends_with_the_block() -> None:
    async with embedded(loader=f"{FAKE}:load") as server:
        pid, url = server.pid, server.url
        async with Endpoint(url, model=None, api_key=server.api_key) as endpoint:
            messages = [{"role": "user", "content": "red"}]
            reply = await endpoint.chat(messages, key="k", max_tokens=9, temperature=0, seed=None)
            assert reply.text.startswith("you said red") and reply.model == "fake-vlm"
        async with Endpoint(url, model=None, api_key="guess") as stranger:
            with pytest.raises(EndpointRefused):
                await stranger.resolve_model()
        assert server.ended() is None and server.api_key not in repr(server)
        assert server.api_key.encode() not in open_to_see(pid)
        assert os.getsid(pid) != os.getsid(0), "the terminal's Ctrl-C would reach it"
    assert not alive(pid)


@pytest.mark.parametrize(
    ("loader", "kind", "says"),
    [
        ("load_broken", UsageError, r"can't be loaded \(half of it\)"),
        ("load_crashing", EndpointUnreachable, "KeyError: 'vision_tower.weight'"),
        ("load_dying", EndpointUnreachable, "exit status 9: Killed by a grumpy kernel"),
    ],
)
async def test_a_child_that_does_not_start_says_why(loader: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        async with embedded(Path("no/such"), loader=f"{FAKE}:{loader}"):
            raise AssertionError("it started")
    assert "\n" not in str(caught.value)


async def test_a_child_that_is_killed_is_noticed() -> None:
    async with embedded(loader=f"{FAKE}:load") as server:
        os.kill(server.pid, signal.SIGKILL)
        for _ in range(100):
            if server.ended():
                break
            await asyncio.sleep(0.05)
        assert "killed by signal 9" in (server.ended() or "")


PARENT = f"""
import asyncio, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from serving.embedded import embedded

async def main():
    async with embedded(loader="{FAKE}:load") as server:
        print(server.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_child_dies_with_its_parent(how: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(how)
        parent.wait(20)
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)
