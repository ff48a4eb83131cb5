"""What a defense is: settings, and the tuple of stages that they run."""

from __future__ import annotations

from typing import ClassVar

from ubt.config import Config


class Defense(Config):
    """A defense as configured. Its stages run behind the victim's and before `evaluate`.

    Each stage reads only the settings of its own model (see `ubt.stages`), so that trials which
    differ in a later knob share everything before it.
    """

    label: ClassVar[str] = ""
    """What people call it, in tables and figures; its kind if empty."""
    path_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that are paths of files: relative ones start at the study file's folder."""
    needs_clean_pairs: ClassVar[bool] = False
    """The defender has clean pairs beside the poisoned ones: the data must have `pretrain` pairs."""
    knows_poison: ClassVar[bool] = False
    """Is given what is poisoned: no defense, but what defenses are read against. A defense may still do better."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of its stages in order. Where no setting changes them, a class variable says them."""
        return ()
