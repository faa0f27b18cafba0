"""What every test runs under."""

from __future__ import annotations

import os

from hypothesis import settings

# Machines that run tests are noisy, so no example is timed. In CI the examples are the same every time; elsewhere
# each run looks for new ones.
settings.register_profile("anywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")
