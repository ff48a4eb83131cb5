"""What a trial is beside its configuration: a component left out, a place in a comparison, an earlier epoch."""

from __future__ import annotations

import re
from typing import Literal, cast

from ubt.config import Config

Phase = Literal["search", "table"]
"""A defense's own search, or the table that the study is for."""


BASE = "base"
"""The component of a trial that leaves out none."""


class ComparisonCell(Config):
    """One defense against one attack, by the names that the study gives them."""

    phase: Phase
    """Whether the trial belongs to the defense's search or to the table."""
    defense: str
    """Row of the table."""
    attack: str
    """Column of the table."""
    note: str = ""
    """What a reader of the row should know, as that the defense's search failed."""

    def __str__(self) -> str:
        return f"{self.phase}:{self.defense}/{self.attack}" + (f" ({self.note})" if self.note else "")


class TrialLabel(Config):
    """What the design says of a trial beside its configuration; nothing, for most designs."""

    component: str = ""
    """Name of the component that a leave-one-out design leaves out; `base` where it leaves out none."""
    words: str = ""
    """The same as it reads in a table, `without overfitting`; empty in records of before it was written down."""
    cell: ComparisonCell | None = None
    """Place in a comparison."""
    epoch_of: str = ""
    """Of which trial it is an earlier epoch, TRIAL@EPOCH: it was begun to judge a point of the front in full."""

    def __str__(self) -> str:
        return str(self.cell) if self.cell else self.component or self.epoch_of

    @property
    def leaves_out(self) -> str:
        """Return the component that is left out, in words; "" if none is."""
        return "" if self.component in {"", BASE} else self.words or self.component.replace("-", " ")

    def __bool__(self) -> bool:
        return bool(self.component) or self.cell is not None or bool(self.epoch_of)


NO_LABEL = TrialLabel()


def label_of_text(text: str) -> TrialLabel:
    """Return the label that records of version 1 hold as text: `no-overfit`, `table:ubt/badnets (note)`, or nothing."""
    found = re.fullmatch(r"(search|table):([^/]+)/([^ ]+)(?: \((.+)\))?", text)
    if found is None:
        return TrialLabel(component=text)
    cell = ComparisonCell(phase=cast(Phase, found[1]), defense=found[2], attack=found[3], note=found[4] or "")
    return TrialLabel(cell=cell)
