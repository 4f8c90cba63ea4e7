"""`--model FOLDER`: a model folder behind `--endpoint embedded`, as training leaves it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from serving.llava import MINI


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the built-in model under another name, by one criterion."""
    made = tmp_path / "own"
    shutil.copytree(MINI, made)
    about = json.loads((made / "partita.json").read_text())
    (made / "partita.json").write_text(json.dumps(about | {"name": "own-1", "criteria": ["suit"]}))
    return made


def test_a_session_runs_on_it_and_goes_on_where_it_has_moved(cli, folder, tmp_path):
    assert cli("examples", "cards", "--kind", "cards", "--count", 8, "--seed", 3).code == 0
    words = ("run", "cards", "--by", "suit", "--model", folder, "--session", "s", "--max-calls", 9, "--json")
    paused = cli(*words)
    assert paused.code == 3, paused.err
    moved = folder.rename(tmp_path / "elsewhere")
    gone = cli("resume", "s", "--json")
    assert gone.code == 2 and str(folder) in gone.err
    shutil.copytree(MINI, tmp_path / "other")
    other = cli("resume", "s", "--model", tmp_path / "other", "--json")
    assert other.code == 2 and "'own-1'" in other.err and "'partita-mini'" in other.err
    done = cli("resume", "s", "--model", moved, "--json")
    assert done.code == 0 and done.json["status"] == "done", done.err
    answers = [json.loads(row) for row in cli("trace", "s", "--json").out.splitlines()]
    assert {row["model"] for row in answers} == {"own-1"}


def test_it_is_asked_by_its_own_criteria_only(cli, folder):
    assert cli("examples", "cards", "--kind", "cards", "--count", 2).code == 0
    refused = cli("run", "cards", "--by", "rank", "--model", folder)
    assert refused.code == 2 and "it was trained by suit" in refused.err


@pytest.mark.parametrize("name", ["runs/nothing", "nothing"])
def test_a_folder_that_is_not_there(cli, name):
    assert cli("examples", "cards", "--kind", "cards", "--count", 2).code == 0
    refused = cli("run", "cards", "--by", "suit", "--model", name)
    assert refused.code == 2 and f"--model {name}: there is no such folder" in refused.err
