"""Backdoor attacks: triggers on images and captions that name a target. Loads no torch."""

from ubt.attacks.base import Attack, Images
from ubt.attacks.table import ATTACKS, AttackConfig

__all__ = ["ATTACKS", "Attack", "AttackConfig", "Images"]
