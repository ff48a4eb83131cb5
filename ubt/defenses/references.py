"""What defenses are read against: the poisoned model as it is, and training without the poison."""

from __future__ import annotations

from typing import ClassVar, Literal

from ubt.defenses.base import Defense


class NoDefense(Defense):
    """Leaves the poisoned model alone; the row that every table is read against."""

    kind: Literal["none"] = "none"
    label: ClassVar[str] = "no defense"
    stages: ClassVar[tuple[str, ...]] = ()


class Oracle(Defense):
    """Trains the clean model by the implant's own recipe on the pairs that are not poisoned."""

    kind: Literal["oracle"] = "oracle"
    label: ClassVar[str] = "oracle"
    stages: ClassVar[tuple[str, ...]] = ("retrain",)
    knows_poison: ClassVar[bool] = True
