"""The command line for tests of all rooms: `cli`, and `any_cli` on each database.

Registered in `tests/conftest.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.warm import AT_START, Warm, warmed

ROOT = Path(__file__).resolve().parents[1]


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
    warm: Warm

    def environment(self, **more: str) -> dict[str, str]:
        foreign = ("PARTITA_", "OPENAI_", "COV", "LANGSMITH_", "LANGCHAIN_", "OTEL_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return inherited | {"PARTITA_DB": self.db, "PYTHONPATH": str(ROOT)} | more

    def __call__(self, *words: object, **environment: str) -> Done:
        """The command in a process that has imported Partita already, where that makes no difference."""
        if any(name.startswith(AT_START) for name in environment):
            return self.anew(*words, **environment)
        return Done(*self.warm.run([*map(str, words)], self.folder, self.environment(**environment), seconds=120))

    def start(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        """A process of its own from the first line on."""
        return subprocess.Popen(
            [sys.executable, "-m", "partita", *map(str, words)],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def anew(self, *words: object, **environment: str) -> Done:
        with self.start(*words, **environment) as process:
            try:
                out, err = process.communicate(timeout=120)
            finally:
                process.kill()
        return Done(process.returncode, out, err)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with warmed(ROOT) as process:
        yield process


@pytest.fixture
def cli(tmp_path: Path, warm: Warm) -> Cli:
    return Cli(tmp_path, f"sqlite:///{tmp_path}/partita.db", warm)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_cli(request: pytest.FixtureRequest, cli: Cli) -> Cli:
    """The same on each database."""
    if request.param == "postgresql":
        cli.db = request.getfixturevalue("postgres_url")
    return cli
