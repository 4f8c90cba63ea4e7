"""Fixtures for all rooms, how many threads there are, and how hypothesis searches."""

import os

# Before numpy and torch are imported, here and in every process that a test starts: tests run side by side, and threads
# that wait for each other on a busy core make a training of seconds take a minute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

pytest_plugins = ["tests.command_line", "tests.postgres"]

# A developer's run searches anew each time; CI's verdict does not depend on luck.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
