from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out.splitlines()[-1])


@dataclass
class Cli:
    """Runs `partita` as a user does, in a folder of its own with nothing of ours in the environment."""

    folder: Path
    db: str

    def start(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        foreign = ("PARTITA_", "OPENAI_", "COV", "LANGSMITH_", "LANGCHAIN_", "OTEL_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return subprocess.Popen(
            [sys.executable, "-m", "partita", *map(str, words)],
            cwd=self.folder,
            env=inherited | {"PARTITA_DB": self.db, "PYTHONPATH": str(ROOT)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: object, **environment: str) -> Done:
        with self.start(*words, **environment) as process:
            try:
                out, err = process.communicate(timeout=120)
            finally:
                process.kill()
        return Done(process.returncode, out, err)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path, f"sqlite:///{tmp_path}/partita.db")


@pytest.fixture(params=["sqlite", "postgresql"])
def any_cli(request: pytest.FixtureRequest, tmp_path: Path) -> Cli:
    if request.param == "sqlite":
        return Cli(tmp_path, f"sqlite:///{tmp_path}/partita.db")
    return Cli(tmp_path, request.getfixturevalue("postgres_url"))


Refusal = Callable[..., Done]
