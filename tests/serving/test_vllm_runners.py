"""`partita serve vllm` with a command that looks like vLLM: real processes, real ports, real signals."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from partita.commands import serve, serve_vllm
from serving.restarts import Restarts
from serving.runners import Patience, _serve
from serving.vllm import Setup, runners
from storage.errors import EndpointUnreachable, UsageError
from tests.serving.test_embedded import alive
from tests.serving.vllm_world import World, make_world, until

KEY = "sk-partita-of-this-test"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = make_world(tmp_path)
    yield world
    until(lambda: not world.left() and not world.processes(), 10)


def arguments(world: World, *more: str) -> list[str]:
    ports = ("--port", str(world.port), "--embed-port", str(world.embed_port))
    command = [sys.executable, "-m", "partita", "serve", "vllm", str(world.model), "--vllm", str(world.vllm)]
    return [*command, *ports, *more]


@contextmanager
def serving(world: World, *more: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, killed at the end of the block if it still runs."""
    with subprocess.Popen(
        arguments(world, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=world.folder,
        env={**world.environ, **environ},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def refused(world: World, *more: str, **environ: str) -> tuple[int, str]:
    """Exit code and stderr of a command that doesn't get to serve."""
    done = subprocess.run(
        arguments(world, *more), capture_output=True, text=True, cwd=world.folder, env={**world.environ, **environ}
    )
    assert done.stdout == "" and "Traceback" not in done.stderr
    return done.returncode, done.stderr


def get(url: str, key: str) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_both_are_served_until_asked_to_stop(world: World, how: signal.Signals) -> None:
    with serving(world, "--", "--enforce-eager", PARTITA_API_KEY=KEY, OPENAI_API_KEY="sk-other") as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        chat, embed = (f"http://127.0.0.1:{port}/v1" for port in (world.port, world.embed_port))
        assert line == (
            f"partita run COLLECTION --by CRITERION --endpoint {chat} --model mini-cards"
            f" --embed-endpoint {embed} --embed-model mini-cards --embed-mode native\n"
        )
        for name, url in (("generate", chat), ("embed", embed)):
            assert get(f"{url}/models", KEY) == 200
            about = world.started(name)
            assert about["argv"][-1] == "--enforce-eager" and KEY not in " ".join(about["argv"])
            assert about["environ"]["VLLM_API_KEY"] == KEY and about["environ"]["HF_HUB_OFFLINE"] == "1"
            assert {k for k in about["environ"] if k.endswith("_API_KEY")} == {"VLLM_API_KEY"}
            assert about["environ"]["PYTHONPATH"] == world.environ["PYTHONPATH"]
        pids = [
            about[who] for name in ("generate", "embed") for about in [world.started(name)] for who in ("pid", "engine")
        ]
        assert all(alive(pid) for pid in pids) and len(world.processes()) == 7
        for pid in world.processes():
            assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert os.getsid(pids[0]) not in (os.getsid(0), os.getsid(pids[2])), "the terminal's Ctrl-C would reach it"
        process.send_signal(how)
        rest, err = process.communicate(timeout=20)
    assert process.returncode == 0 and rest == "" and "Traceback" not in err
    assert not any(alive(pid) for pid in pids) and not world.processes()
    logs = b"".join(file.read_bytes() for file in (world.folder / ".partita/vllm").iterdir())
    assert KEY not in err and KEY.encode() not in logs and b"--enforce-eager" in logs
    assert f"its log is .partita/vllm/embed-{world.embed_port}.log" in err


def test_one_starts_after_the_other_unless_they_have_gpus_of_their_own(world: World) -> None:
    world.tell("generate", "dawdle")
    with serving(world) as process:
        assert process.stderr is not None and process.stdout is not None
        assert "starting the generating runner" in process.stderr.readline()
        world.untell("generate", "dawdle")
        assert "the generating runner answers" in process.stderr.readline()
        assert "starting the embedding runner" in process.stderr.readline()
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    world.tell("generate", "dawdle")
    with serving(world, "--gpus", "0", "--embed-gpus", "1") as process:
        assert world.started("embed", 2)["environ"]["CUDA_VISIBLE_DEVICES"] == "1"
        process.send_signal(signal.SIGTERM)  # while one still starts
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and out == ""


def test_a_runner_that_is_killed_is_started_again_and_the_other_goes_on(world: World) -> None:
    with serving(world) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        first, other = world.started("embed"), world.started("generate")
        os.kill(first["pid"], signal.SIGKILL)
        second = world.started("embed", 2)
        assert second["argv"] == first["argv"]
        assert not alive(first["engine"]) and alive(other["pid"]) and alive(other["engine"])
        for line in process.stderr:
            if "the embedding runner ended" in line:
                assert re.search(r"\(killed by signal 9: .*log: \S+\): starting it again in 1 s \(1 of 5\)$", line)
                break
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and rest == ""


def test_nothing_outlives_the_command_even_if_it_is_killed(world: World) -> None:
    with serving(world) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert len(world.left()) == 4
        process.kill()
    until(lambda: not world.left() and not world.processes(), 20)


def test_a_runner_whose_guard_is_killed_is_not_left_either(world: World) -> None:
    with serving(world) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        first = world.started("generate")
        os.kill(os.getpgid(first["pid"]), signal.SIGKILL)
        world.started("generate", 2)
        assert not alive(first["pid"]) and not alive(first["engine"])
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_a_runner_that_dies_at_start_says_why(world: World) -> None:
    world.tell("embed", "die")
    code, err = refused(world)
    last = err.splitlines()[-1]
    assert code == 4 and "the embedding runner did not start (exit status 1: ValueError: Free memory" in last
    assert f"log: .partita/vllm/embed-{world.embed_port}.log" in last


def test_if_the_first_does_not_start_the_second_is_not_tried(world: World) -> None:
    code, err = refused(world, "--vllm", "/bin/true")
    assert code == 4 and "the generating runner did not start (exit status 0" in err
    assert "embedding" not in err and not list(world.folder.glob(".partita/vllm/embed-*"))


def test_a_runner_that_never_answers_is_given_up(world: World) -> None:
    world.tell("generate", "hang")
    code, err = refused(world, "--start-timeout", "0.1")
    assert code == 4 and "did not answer within 0.1 s" in err and "--start-timeout" in err


@pytest.mark.parametrize(
    ("more", "environ", "says"),
    [
        (["--host", "0.0.0.0"], {"OPENAI_API_KEY": "sk-other"}, "set PARTITA_API_KEY to serve there"),
        (["--vllm", "nowhere/vllm"], {}, "nowhere/vllm is no command"),
        (["--memory-split", "most"], {}, "--memory-split most: give two shares"),
        (["--generate-args", '"'], {}, "--generate-args: No closing quotation"),
        (["another"], {}, "'another' is no option of vLLM's"),
    ],
)
def test_wrong_use_is_refused_before_anything_starts(
    world: World, monkeypatch: pytest.MonkeyPatch, more: list[str], environ: dict[str, str], says: str
) -> None:
    assert says in told(world, monkeypatch, *more, **environ)


def test_a_taken_port_is_told_before_anything_starts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for port, option in ((world.port, "--port"), (world.embed_port, "--embed-port")):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            said = told(world, monkeypatch)
        assert f"127.0.0.1:{port} can't be listened on" in said and said.endswith(f"--host or {option}")


def test_without_a_model_or_vllm_it_is_said_how_to_get_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(UsageError, match=r"pip install 'partita\[vllm\]'"):
        serve_vllm.command.main([str(world.model)], standalone_mode=False)
    (world.model / "config.json").unlink()
    assert "partita serve export" in told(world, monkeypatch)


def test_options_of_the_built_in_server_are_not_taken_for_vllms() -> None:
    with pytest.raises(UsageError, match="--host is the built-in server's here: give it after `vllm`"):
        serve.command.main(["--host", "0.0.0.0", "vllm", "model"], standalone_mode=False)


def told(world: World, monkeypatch: pytest.MonkeyPatch, *more: str, **environ: str) -> str:
    """What a user is told whose command doesn't get so far as to start anything."""
    for name in ("PARTITA_API_KEY", "OPENAI_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(world.folder)
    with pytest.raises(UsageError) as caught:
        serve_vllm.command.main(arguments(world, *more)[5:], standalone_mode=False)
    assert not (world.folder / ".partita").exists() and "\n" not in str(caught.value)
    return str(caught.value)


class Watch:
    """Runners watched in this process, with a patience for tests."""

    def __init__(self, world: World, **patience: Any) -> None:
        self.said: list[str] = []
        self.ready = asyncio.Event()
        setup = Setup(world.vllm, world.model, "cards", port=world.port, embed_port=world.embed_port)
        restarts = Restarts(most=2, first=0.01)
        hurried = replace(
            Patience(start=20, every=0.05, answer=5, misses=2, grace=5, gone=0.3, restarts=restarts), **patience
        )
        both = runners(setup, world.environ)
        logs = world.folder / "logs"
        self.task = asyncio.create_task(_serve(both, logs, hurried, True, self.said.append, self.ready.set))

    async def hears(self, pattern: str, times: int = 1) -> None:
        """Wait until that many lines match."""
        async with asyncio.timeout(20):
            while sum(re.search(pattern, line) is not None for line in self.said) < times:
                assert not self.task.done(), self.said
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


@pytest.mark.parametrize("misbehave", ["hang", "ail"])
async def test_a_runner_that_is_not_well_is_started_again(world: World, misbehave: str) -> None:
    watch = Watch(world, answer=0.5)
    await asyncio.wait_for(watch.ready.wait(), 20)
    first = world.started("generate")
    world.tell("generate", misbehave)
    await watch.hears("no good answer to GET /health: starting it again")
    world.untell("generate", misbehave)
    await watch.hears("the generating runner answers", times=2)
    assert not alive(first["pid"]) and not alive(first["engine"])
    assert world.started("generate", 2)["argv"] == first["argv"]
    await watch.stop()


async def test_a_runner_that_fails_again_and_again_ends_both(world: World) -> None:
    watch = Watch(world)
    await asyncio.wait_for(watch.ready.wait(), 20)
    world.tell("embed", "die")
    os.kill(world.started("embed")["pid"], signal.SIGKILL)
    with pytest.raises(EndpointUnreachable, match=r"ValueError: Free memory.*given up after 2 restarts"):
        await asyncio.wait_for(watch.task, 20)
    assert sum("starting it again" in line for line in watch.said) == 2
    assert not world.left() and not world.processes()


async def test_trouble_with_logs_stops_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.runner_log.LONGEST", 8)
    for name, port in (("generate", world.port), ("embed", world.embed_port)):
        (world.folder / "logs" / f"{name}-{port}.log.1").mkdir(parents=True)
    watch = Watch(world, restarts=Restarts(most=8, first=0.05))
    await watch.hears(r"generate-\d+\.log\.1 can't be written \(Is a directory\)")
    await watch.hears(r"embed-\d+\.log\.1 can't be written \(Is a directory\)")
    log = world.folder / "logs" / f"embed-{world.embed_port}.log"
    log.unlink()
    log.mkdir()  # nor can it be written when the runner is started again
    os.kill(world.started("embed")["pid"], signal.SIGKILL)
    await watch.hears("starting it again", times=2)
    log.rmdir()
    await watch.hears("the embedding runner answers", times=2)
    assert alive(world.started("generate")["pid"]) and sum(".log.1 can't be" in line for line in watch.said) == 2
    await watch.stop()


async def test_a_long_wait_is_told_with_the_last_line_of_the_log(world: World) -> None:
    world.tell("generate", "dawdle")
    watch = Watch(world, tell=0.05)
    await watch.hears(r"waiting for the generating runner, \d+ s: INFO .* loading$")
    await watch.stop()


async def test_a_second_signal_does_not_wait(world: World) -> None:
    """Engines here end of SIGKILL alone; so does a runner that is stopped in its tracks."""
    watch = Watch(world, grace=600)
    await asyncio.wait_for(watch.ready.wait(), 20)
    os.kill(world.started("generate")["pid"], signal.SIGSTOP)
    watch.task.cancel()
    await watch.hears("stopping the runners")
    await watch.stop()
    until(lambda: not world.left() and not world.processes())
