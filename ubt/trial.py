"""One trial as configured: a victim, a defense and a seed. Loads no torch."""

from __future__ import annotations

from ubt.config import Config
from ubt.defenses import DefenseConfig
from ubt.defenses.ubt import Ubt
from ubt.errors import Problem, UserError
from ubt.victim import VictimConfig


class TrialConfig(Config):
    """What one pipeline runs."""

    victim: VictimConfig = VictimConfig()
    defense: DefenseConfig = Ubt()

    def check_target(self) -> None:
        """Refuse a target that is no class of the data. Classes that cannot be read are told with the data.

        Raises:
            UserError: naming the classes there are.
        """
        try:
            classes = list(self.victim.data.class_names())
        except UserError:
            return
        target = self.victim.attack.target
        if target not in classes:
            some = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
            raise UserError(Problem("victim.attack.target", f"is no class of the data; classes: {some}", target))
