"""Fixtures for all rooms, and how hypothesis searches."""

import os

from hypothesis import settings

pytest_plugins = ["tests.postgres"]

# A developer's run searches anew each time; CI's verdict does not depend on luck.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
