"""The front door itself: light, ours, and the same from Python."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

import partita
from tests.command_line import ROOT
from tests.truth import Truth, numbers, serving


def test_help_imports_nothing_heavy(cli):
    script = """
import sys
from partita.__main__ import main
sys.argv = ["partita", "--help"]
try:
    main()
finally:
    heavy = {"torch", "transformers", "langgraph", "sqlalchemy", "openai", "numpy", "networkx", "sklearn", "rich"}
    print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "resume" in done.stdout and done.stdout.splitlines()[-1] == "[]"


def test_no_verb_waits_for_libraries_of_the_agents_before_they_work():
    script = """
import importlib, sys
from partita.verbs import VERBS
for verb in VERBS:
    importlib.import_module("partita.commands." + verb)
print(sorted({"torch", "transformers", "langgraph", "openai", "networkx", "scipy", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_room_of_somebody_else_is_noticed(cli, tmp_path):
    (tmp_path / "other" / "agents").mkdir(parents=True)
    (tmp_path / "other" / "agents" / "__init__.py").touch()
    done = cli("sessions", PYTHONPATH=f"{tmp_path}/other:{ROOT}")
    assert done.code == 2 and "'agents'" in done.err and "environment of its own" in done.err


def test_every_verb_has_help(cli):
    from partita.verbs import VERBS

    for verb in VERBS:
        done = cli.anew(verb, "--help")  # each has what it imports
        assert done.code == 0 and "Usage" in done.out


def test_version_is_that_of_the_distribution():
    import tomllib

    assert partita.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_langgraph_json_names_graphs_that_compile():
    import importlib

    for where in json.loads((ROOT / "langgraph.json").read_text())["graphs"].values():
        path, _, name = where.partition(":")
        assert getattr(importlib.import_module(path), name).get_graph().nodes


@pytest.mark.parametrize("inside_a_loop", [False, True])
def test_the_same_job_from_python(tmp_path, monkeypatch, inside_a_loop):
    monkeypatch.chdir(tmp_path)
    for name in ("PARTITA_DB", "PARTITA_ENDPOINT", "PARTITA_MODEL"):
        monkeypatch.delenv(name, raising=False)
    with serving(Truth(numbers(30, 3))) as truth:
        folder = truth.write(tmp_path / "c")

        def job():
            return partita.cluster(folder, "kind", endpoint=truth.url, embed_mode="native", session="p")

        async def notebook():
            return job()

        result = asyncio.run(notebook()) if inside_a_loop else job()
    assert result.status == "done" and len(result.clusters) == 3
    session = partita.Session("p")
    assert session.result() == result
    assert session.score(folder / "labels.csv", "kind").nmi == pytest.approx(1)
    row = next(session.trace(cluster=1))
    assert row["conclusion"] in ("YES", "NO") and row["reason"]
    assert session.export(tmp_path / "x.json").exists()
    with pytest.raises(partita.PartitaError, match="nobody"):
        partita.Session("nobody")
