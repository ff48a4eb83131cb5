"""Defenses: settings and stages. Loads no torch."""

from ubt.defenses.base import Defense
from ubt.defenses.table import DEFENSES, DefenseConfig

__all__ = ["DEFENSES", "Defense", "DefenseConfig"]
