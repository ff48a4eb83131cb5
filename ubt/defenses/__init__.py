"""Defenses as configured: their settings and the stages that these run. Loads no torch.

A new defense is a class in a file here, its stages, and a name in `DEFENSES.add`; one of another distribution an entry
point in the group `ubt.defenses`.
"""

from __future__ import annotations

from typing import Annotated

from ubt.common.registry import Registry
from ubt.config.base import ByKind, kind_of
from ubt.defenses.base import Defense
from ubt.defenses.baselines import Abl, CleanClip, Finetune, NoDefense, Oracle, Par
from ubt.defenses.reference import Interpolate, Reference
from ubt.defenses.ubt import Ubt

DEFENSES: Registry[type[Defense]] = Registry("defense", "ubt.defenses", kind_of, __name__, Defense)
DEFENSES.add(NoDefense, Ubt, Finetune, CleanClip, Abl, Par, Oracle, Reference, Interpolate)

DefenseConfig = Annotated[Defense, ByKind(DEFENSES)]
"""A defense as configured, of any kind that is registered."""

__all__ = ["DEFENSES", "Defense", "DefenseConfig"]
