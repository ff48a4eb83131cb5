"""What a defense is: settings, and the tuple of stages that they run."""

from __future__ import annotations

from typing import ClassVar

from ubt.config import Config


class Defense(Config):
    """A defense as configured. Its stages run behind the victim's and before `evaluate`.

    Each stage reads only the settings of its own model (see `ubt.stages.table`), so that trials which
    differ in a later knob share everything before it.
    """

    stages: ClassVar[tuple[str, ...]] = ()
