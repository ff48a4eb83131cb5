"""Importing this imports what any trial needs: Ray does so in the workers that it starts for `beforehand`.

What cannot be imported is left to the trial that needs it: its error says why, where Ray would start one worker after
the other in silence.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

for _name in ("sweeps.backends.trainable", "ubt.engine.runner", "ubt.stages"):
    with suppress(Exception):
        import_module(_name)
