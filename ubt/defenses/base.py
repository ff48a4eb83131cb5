"""What a defense is: settings, and the tuple of stages that they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ubt.common.errors import Problem, UserError
from ubt.config import Config


@dataclass(frozen=True)
class Counts:
    """How much data a trial has: what defenses and metrics are asked about before anything is trained."""

    pairs: int
    """Training pairs in D."""
    poisoned: int
    """Those of them that are known to be poisoned."""
    clean_pairs: int | None
    """`pretrain` pairs; None if the data has none."""
    val_classes: int
    """Distinct classes among the validation images."""


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

    def check_counts(self, counts: Counts) -> None:
        """Refuse data of which so little is left for some stage that it could not run.

        Raises:
            UserError: naming the setting, and what it comes to.
        """
        if self.needs_clean_pairs and counts.clean_pairs is not None and counts.clean_pairs < 2:
            message = f"trains on clean pairs, and there are {counts.clean_pairs}: a batch contrasts two at least"
            raise UserError(Problem("victim.data", message))
