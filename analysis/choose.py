"""The choice: the lowest attack success rate that keeps clean accuracy, both on the validation split."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.replicates import Configuration
from ubt.metrics import keeps_accuracy


def choose(configurations: Iterable[Configuration], ca_floor: float) -> Configuration | None:
    """Return the configuration of lowest ASR whose CA is at least the poisoned model's less `ca_floor`.

    Ties go to the higher CA, then to the lower number. None if no configuration qualifies: a model that
    fell below the floor is never offered as the choice.
    """
    qualified = [configuration for configuration in configurations if qualifies(configuration, ca_floor)]
    return min(qualified, key=lambda configuration: configuration.rank, default=None)


def qualifies(configuration: Configuration, ca_floor: float) -> bool:
    """Tell whether a configuration is measured and loses at most `ca_floor` of the poisoned model's CA."""
    if configuration.val is None or configuration.poisoned_val is None:
        return False
    return keeps_accuracy(configuration.poisoned_val.ca.mean - configuration.val.ca.mean, ca_floor)
