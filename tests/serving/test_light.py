"""What importing the room costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_importing_serving_loads_nothing_heavy() -> None:
    code = (
        "import sys, serving, serving.client, serving.images, serving.embedded, serving.server, serving.probe\n"
        "import serving.vllm, serving.runners, partita.commands.serve_vllm\n"
        "print([m for m in ('torch', 'transformers', 'openai', 'httpx', 'starlette', 'uvicorn', 'PIL', 'vllm')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
