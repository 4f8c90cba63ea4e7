"""The curves of a training: a log that survives a kill, a picture, TensorBoard's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from storage.errors import UsageError
from training.curves import Curves, append, read_log


def told(curves: Curves, first: int, last: int) -> None:
    for step in range(first, last):
        measured = {"assessment": 3 / step} if step % 3 == 0 else {"caption": 4 / step, "alike": 1 / step}
        curves.step(step, (step - 1) // 10, {**measured, "rate": 1e-5})
        if step % 10 == 0:
            held_out = {"caption": 5 / step, "alike": 1.2 / step, "accuracy": 1 - 1 / step, "auc": 0.9}
            curves.epoch(step, (step - 1) // 10, held_out, best=step < 30)


def test_curves_are_drawn_and_told_to_tensorboard(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        told(curves, 1, 41)
    lines = read_log(tmp_path / "log.jsonl")
    assert len(lines) == 44
    assert [line["best"] for line in lines if "held_out" in line] == [True, True, False, False]
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1200, 540)
        assert len(picture.convert("RGB").getcolors(2**20) or ()) > 20
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert {"training/caption", "training/alike", "training/rate", "held out/auc"} <= set(board.Tags()["scalars"])
    assert [event.step for event in board.Scalars("held out/caption")] == [10, 20, 30, 40]


def test_steps_that_are_done_again_are_told_once(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        told(curves, 1, 26)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 26, "epo')  # cut short by a kill
    with Curves(tmp_path, step=18) as curves:
        assert max(line["step"] for line in read_log(tmp_path / "log.jsonl")) == 18
        told(curves, 19, 41)
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines if "held_out" not in line] == list(range(1, 41))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("training/rate")] == list(range(1, 41))


def test_an_epoch_that_is_measured_again_is_told_once(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        told(curves, 1, 21)
    # Killed when the second epoch was told of, and not yet counted among those measured.
    with Curves(tmp_path, step=20, epochs=1) as curves:
        curves.epoch(20, 1, {"auc": 0.9}, best=True)
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["epoch"] for line in lines if "held_out" in line] == [0, 1]
    assert [line["step"] for line in lines if "held_out" not in line] == list(range(1, 21))


def test_what_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(UsageError, match="make room, and run the same command again"):
        append(tmp_path / "log.jsonl", {})
