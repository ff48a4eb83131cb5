"""What caused what: the effect of every component and setting, paired by seed, and how much each knob matters."""

from analysis.effects.estimates import Difference, Effect, Effects, find_effects
from analysis.effects.importance import Importances, find_importances

__all__ = ["Difference", "Effect", "Effects", "Importances", "find_effects", "find_importances"]
