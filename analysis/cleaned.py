"""What a cleaning shows: the models that could be deployed, the suspicious pairs as a table, and a page to read."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from analysis.formatting import percent
from analysis.rendering import template
from ubt.common.choice import ALIKE, KNOWS


@dataclass(frozen=True)
class ModelRow:
    """One model that a defender could deploy."""

    name: str
    ca: float
    """Of labelled images the fraction classified rightly; without labels, of pairs the fraction that is nearer to its
    own caption than to all others that were drawn."""
    ca_low: float
    ca_high: float
    """Wilson's 95 % interval of it."""
    images: int
    held_similarity: float
    alike: float
    """Share of suspicious images that are nearer to the selected captions than 95 % of ordinary images."""


@dataclass(frozen=True)
class Suspect:
    """One pair that the detector looked at."""

    rank: int
    """From 1, the least trusted first."""
    row: int
    """In the table of pairs, from 0."""
    image: str
    caption: str
    trust: float
    """As the detector has it; low is suspicious."""
    suspected: bool
    similarity: float | None
    """Under the suspicious model, of suspects alone; …"""
    overfitted: float | None
    """… and under the overfitted one, by which suspects are selected."""
    selected: bool
    telling: str
    """Words of the caption that were unlearnt."""


@dataclass(frozen=True)
class SelectedPair:
    """One pair that was unlearnt, to be shown."""

    row: int
    image: str
    """As a data URL."""
    tokens: tuple[tuple[str, float], ...]
    """Each word of the caption with its share of the relevance."""


@dataclass(frozen=True)
class Cleaned:
    """What a cleaning came to."""

    pairs: int
    labelled: bool
    """CA is of labelled images."""
    has_reference: bool
    """The defender has a clean model."""
    models: tuple[ModelRow, ...]
    """The model as it came, the cleaned one, and others that could be deployed."""
    suspects: tuple[Suspect, ...]
    selected: tuple[SelectedPair, ...]
    threshold: float
    """Words of a higher relevance were unlearnt."""
    qualified: bool = True
    """The rule chose a setting; if not, the nearest was taken."""
    tried: int = 1
    settings: tuple[str, ...] = ()

    @property
    def before(self) -> ModelRow:
        """Return the model as it came."""
        return self.models[0]

    @property
    def after(self) -> ModelRow:
        """Return the cleaned model."""
        return self.models[1]

    @property
    def conclusion(self) -> str:
        """Return in a sentence what a defender may conclude, and no more."""
        before, after = self.before.alike, self.after.alike
        if before <= ALIKE:
            return (
                f"Of the suspicious images {percent(before)} are drawn to the selected captions already before "
                "anything was done, which is about chance: there is no sign of a backdoor in them, which does not say "
                "that there is none."
            )
        if not self.qualified:
            return (
                "No setting met the rule; this is the nearest to it. Look at the numbers before you deploy it, or try "
                "others with --set."
            )
        return (
            f"Suspicious images that are drawn to the selected captions fell from {percent(before)} to "
            f"{percent(after)} (chance: 5%). Whether a trigger works cannot be measured without it."
        )

    @property
    def accuracy(self) -> str:
        """Return what the column of accuracies is called."""
        return "clean accuracy" if self.labelled else "own caption found"


def suspects_csv(cleaned: Cleaned) -> str:
    """Return the pairs that the detector looked at as CSV, the least trusted first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["rank", "row", "image", "caption", "trust", "suspected", "similarity", "similarity_overfitted"]
    writer.writerow([*names, "selected", "telling_tokens"])
    for pair in cleaned.suspects:
        scores = [f"{pair.trust:.6g}", int(pair.suspected), _score(pair.similarity), _score(pair.overfitted)]
        writer.writerow([pair.rank, pair.row, pair.image, pair.caption, *scores, int(pair.selected), pair.telling])
    return text.getvalue()


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def page_of(cleaned: Cleaned) -> str:
    """Return the page as HTML that needs no network; captions are escaped, for they come from anywhere."""
    return template("cleaned.html.j2").render(cleaned=cleaned, knew=KNOWS["trigger_free"])
