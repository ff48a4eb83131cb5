"""What caused what: the effect of every component and setting, paired by seed, and how much each knob matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ubt.lazy import lazily

if TYPE_CHECKING:
    from analysis.effects.estimates import Difference, Effect, Effects, find_effects
    from analysis.effects.importance import Importances, begin_importances, find_importances

__all__ = ["Difference", "Effect", "Effects", "Importances", "begin_importances", "find_effects", "find_importances"]

_ESTIMATES, _IMPORTANCE = "analysis.effects.estimates", "analysis.effects.importance"
# The process that works importances out begins with this package, and needs no pandas.
__getattr__ = lazily(
    __name__,
    dict.fromkeys(("Difference", "Effect", "Effects", "find_effects"), _ESTIMATES)
    | dict.fromkeys(("Importances", "begin_importances", "find_importances"), _IMPORTANCE),
)
