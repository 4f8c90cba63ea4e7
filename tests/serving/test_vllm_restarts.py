"""When a runner is started again, and what its log says of its end."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from serving import runner_log
from serving.restarts import Restarts
from serving.runner_log import RunnerLog, last_error
from storage.errors import UsageError


def test_restarts_wait_longer_and_end() -> None:
    restarts = Restarts(most=5, first=1, longest=6)
    assert [restarts.after(served=10) for _ in range(6)] == [1, 2, 4, 6, 6, None]
    assert restarts.count == 5


def test_good_service_makes_up_for_failures() -> None:
    restarts = Restarts(most=2, calm=600, first=1)
    assert [restarts.after(served) for served in (5, 599, 600, 0, 0)] == [1, 2, 1, 2, None]


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ([], ""),
        (["loading", "vllm: error: unrecognized arguments: --foo"], "vllm: error: unrecognized arguments: --foo"),
        (["KeyError: 'a'", "torch.OutOfMemoryError: CUDA", "bye"], "torch.OutOfMemoryError: CUDA"),
        (
            ["(Engine pid=7) ERROR [core.py:9] ValueError: too little", "RuntimeError: no. See root cause above."],
            "ValueError: too little",
        ),
        (["RuntimeError: no. See root cause above."], "RuntimeError: no. See root cause above."),
    ],
)
def test_the_last_words_name_the_cause(log: list[str], says: str) -> None:
    assert last_error(log) == says


def test_a_log_speaks_of_the_last_start_only(tmp_path: Path) -> None:
    log = RunnerLog(tmp_path / "logs" / "embed.log")
    assert log.last_line() == ""
    with log.opened("first") as file:
        file.write(b"KeyError: 'old'\n")
    with log.opened("second") as file:
        assert log.last_words() == ""
        file.write(b"\x1b[32mloading\x1b[0m  10%\rloading  20%\r")
    assert log.last_words() == "loading  20%"
    assert log.path.read_text().startswith("=== first\nKeyError")


def test_a_long_log_is_put_aside_under_a_process_that_writes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_log, "LONGEST", 64)
    log = RunnerLog(tmp_path / "generate.log")
    with log.opened("start") as file:
        file.write(b"x" * 100 + b"\n")
        file.flush()
        log.shorten()
        assert log.path.stat().st_size == 0 and (tmp_path / "generate.log.1").stat().st_size > 100
        file.write(b"y\n")
        file.flush()
        log.shorten()
    assert log.path.read_bytes() == b"y\n" and log.last_line() == "y"


@pytest.mark.parametrize("fault", ["folder", "full"])
def test_a_log_that_cannot_be_put_aside_is_emptied_and_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runner_log, "LONGEST", 8)
    log = RunnerLog(tmp_path / "embed.log")
    if fault == "folder":
        (tmp_path / "embed.log.1").mkdir()
    else:
        monkeypatch.setattr("shutil.copyfile", full)
    told = []
    with log.opened("start") as file:
        for _ in range(3):
            file.write(b"KeyError: 'of this start'\n")
            file.flush()
            assert log.last_line() == "KeyError: 'of this start'"
            told.append(log.shorten())
            assert log.path.stat().st_size == 0
    why = {"folder": "Is a directory", "full": "No space left on device"}[fault]
    assert told == [f"{log.path}.1 can't be written ({why}): what was in the log is lost", None, None]


def test_a_log_that_cannot_even_be_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(runner_log, "LONGEST", 8)
    monkeypatch.setattr("os.truncate", no)
    log = RunnerLog(tmp_path / "embed.log")
    log.opened("a long headline").close()
    assert [log.shorten(), log.shorten()] == [
        f"{log.path} can't be kept short (Operation not permitted): it grows",
        None,
    ]


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="choose a folder with --logs"):
        RunnerLog(tmp_path / "file" / "embed.log").opened("start")
