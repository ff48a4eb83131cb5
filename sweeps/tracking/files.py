"""Files that are made for MLflow when a sweep has ended: figures as images, and the chosen model. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from analysis.findings import Findings
from sweeps.tracking.model.chosen import MODEL_FOLDER, ChosenModel, chosen_model
from ubt.common.atomic_files import write_whole
from ubt.common.paths import FIGURES_FOLDER


@dataclass(frozen=True)
class MadeFiles:
    """What is made of a run's findings, beside its report."""

    findings: Findings
    model_limit_bytes: int

    @cached_property
    def model(self) -> ChosenModel | None:
        """Return the chosen model, if it is at hand and small enough."""
        return chosen_model(self.findings, self.model_limit_bytes) if self.model_limit_bytes else None

    @property
    def names(self) -> list[str]:
        """Return what there will be, the model by its key: equal ones are equal files."""
        figures = [FIGURES_FOLDER] if self.findings.measured else []
        return [*figures, *([f"{MODEL_FOLDER}/{self.model.key}"] if self.model else [])]

    def write(self, folder: Path) -> None:
        """Write the figures. One that cannot be made is left out: none is worth the rest.

        Raises:
            OSError: if the disk is full or not writable.
        """
        from analysis.paper.stills import stills  # noqa: PLC0415 — matplotlib

        for name, image in stills(self.findings).items() if self.findings.measured else ():
            write_whole(folder / FIGURES_FOLDER / f"{name}.png", image)
