"""No defense: the poisoned model as it is."""

from __future__ import annotations

from typing import ClassVar, Literal

from ubt.defenses.base import Defense


class NoDefense(Defense):
    """Leaves the poisoned model alone; the row that every table is read against."""

    kind: Literal["none"] = "none"
    stages: ClassVar[tuple[str, ...]] = ()
