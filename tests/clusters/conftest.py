"""Where helpers of these tests lie: hosts in `tests/chaos`, trials that stop where a test says in `tests/sweeps`."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for folder in ("chaos", "sweeps"):
    if str(TESTS / folder) not in sys.path:
        sys.path.append(str(TESTS / folder))
