"""What a trial of a comparison is for, as its label says it: written by the search, read by the report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

Phase = Literal["search", "table"]
"""A defense's own search, or the table that the study is for."""

_LABEL = re.compile(r"(search|table):([^/]+)/([^ ]+)(?: \((.+)\))?")


@dataclass(frozen=True)
class Cell:
    """One defense against one attack, by the names that the study gives them."""

    phase: Phase
    defense: str
    attack: str
    note: str = ""
    """What a reader of the table should know, as that the defense's search failed."""

    def __str__(self) -> str:
        """Return the label, e.g. `table:ubt/badnets`."""
        return f"{self.phase}:{self.defense}/{self.attack}" + (f" ({self.note})" if self.note else "")


def cell_of(label: str) -> Cell | None:
    """Return what a label says; None for trials of any other design."""
    found = _LABEL.fullmatch(label)
    return Cell(cast(Phase, found[1]), found[2], found[3], found[4] or "") if found else None
