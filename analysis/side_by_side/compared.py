"""Several runs for notebooks and programs, and as a folder: a page that needs no network, and its numbers as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from analysis.figures.base import Absent, attempt
from analysis.rendering import Texts
from analysis.side_by_side.choices import Row, rows
from analysis.side_by_side.defenses import DefenseRows, defense_rows, defenses_table
from analysis.side_by_side.effects import EffectRows, effect_rows
from analysis.side_by_side.figures import draw_fronts, draw_growth, fronts_info, growth_info
from analysis.side_by_side.output import (
    effects_of_runs,
    fronts_table,
    growth_table,
    markdown,
    runs_table,
    settings_table,
)
from analysis.side_by_side.page import FRONTS, GROWTH, render, shown
from analysis.side_by_side.settings import Differing, differing
from analysis.side_by_side.sides import Side, notes, read_sides
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError

PAGE, MARK = "index.html", "runs.csv"
"""What is opened, and the file by which an earlier comparison in a folder is known."""


class ComparedRuns:
    """Several runs side by side, as `compare_runs` returns them.

    Rates are fractions in [0, 1]; each table is made when it is first asked for, and then kept.

    Example:
        >>> import analysis
        >>> compared = analysis.compare_runs("runs/tpe", "runs/random")  # doctest: +SKIP
        >>> compared.runs[["run", "test_asr", "test_ca", "hypervolume", "shared_seconds"]]  # doctest: +SKIP
        >>> compared.figure("growth").write_html("growth.html")  # doctest: +SKIP
    """

    def __init__(self, sides: tuple[Side, ...]) -> None:
        self._sides = sides

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        return rows(self._sides)

    @cached_property
    def _settings(self) -> tuple[Differing, ...]:
        return differing(self._sides)

    @cached_property
    def _effects(self) -> EffectRows:
        return effect_rows(self._sides)

    @cached_property
    def _defenses(self) -> DefenseRows:
        return defense_rows(self._sides)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What to know before rates of one run are held against another's: other victims, seeds or rules."""
        return notes(self._sides)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One line a run.

        `run`, `place`, `study`, `design`, `victim` (a number, equal for equal victims), `trials`, `trials_done`,
        `configurations`; `chosen` with `chosen_settings`; the poisoned model's and the choice's rates on both splits,
        as `poisoned_test_asr`, `test_asr`, with `_low` and `_high`; the choice less that of the run `held_against` as
        `difference_asr` and `difference_ca`, paired by seed; `front`, `on_common_front`, `hypervolume`,
        `common_hypervolume`; `wall_seconds`, `spent_seconds`, and device time with sharing within the run
        (`shared_seconds`) and without (`alone_seconds`).
        """
        return runs_table(self._rows)

    @cached_property
    def fronts(self) -> pd.DataFrame:
        """One line a configuration on its run's front, by rising ASR: `run`, then the columns of `Run.front`."""
        return fronts_table(self._sides)

    @cached_property
    def growth(self) -> pd.DataFrame:
        """One line a trial of each run, in the order in which they ended.

        `run`, `trials` (how many have ended), `trial`, `shared_seconds`, `alone_seconds`, `hypervolume` so far.
        """
        return growth_table(self._sides)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One line for each effect of each run: `name`, `run`, `split`, `seeds`, and both rates as `Run.effects` has.

        Empty unless two runs hold effects.
        """
        return effects_of_runs(self._effects)

    @cached_property
    def defenses(self) -> pd.DataFrame:
        """One line for each defense of each run that compares defenses, the mean over its attacks on test.

        `defense`, `run`, `asr`, `ca`, each with `_low` and `_high`. Empty unless two runs compare any.
        """
        return defenses_table(self._defenses)

    @cached_property
    def settings(self) -> pd.DataFrame:
        """One line for each thing that differs: `part` (study, made with), `setting`, and a column for each run."""
        return settings_table(self._settings, self._sides)

    @property
    def markdown(self) -> str:
        """The runs, their effects, and what differs, as Markdown tables with what is to be known of them."""
        return markdown(self._rows, self._settings, self._effects, self._defenses, self.notes, self._sides)

    def figure(self, name: str) -> go.Figure:
        """Return the figure `fronts` or `growth`, which shows itself in a notebook.

        Raises:
            UserError: if there is no figure of that name, or the runs have not the data for it; says what is missing.
        """
        figure = self._figure(name)
        if isinstance(figure, Absent):
            raise UserError(Problem(f"figure `{name}`", f"cannot be drawn from these runs: {figure.why}"))
        return figure

    def _figure(self, name: str) -> go.Figure | Absent:
        if name == "fronts":
            fronts = fronts_info(self._sides)
            return fronts if isinstance(fronts, Absent) else draw_fronts(fronts)
        if name == "growth":
            grown = growth_info(self._sides)
            return grown if isinstance(grown, Absent) else draw_growth(grown)
        raise UserError(Problem("figure", "unknown; allowed: fronts, growth", name))

    def write(self, folder: Path | str) -> Path:
        """Write the page and its tables into a folder, each whole, and return the page's path.

        Raises:
            UserError: if the folder holds something else than an earlier comparison.
            OSError: if it cannot be written.
        """
        place = Path(folder)
        if place.exists() and (not place.is_dir() or (any(place.iterdir()) and not (place / MARK).is_file())):
            message = "holds other files" if place.is_dir() else "is a file"
            raise UserError(Problem("--out", message, str(place), "give a new or an empty folder"))
        contents = {**self._tables(), PAGE: self._page()}
        for name, content in contents.items():
            write_whole(place / name, content)
        return place / PAGE

    def _tables(self) -> Mapping[str, str]:
        tables = {MARK: self.runs, "fronts.csv": self.fronts, "growth.csv": self.growth, "settings.csv": self.settings}
        tables |= {"effects.csv": self.effects} if self._effects else {}
        tables |= {"defenses.csv": self.defenses} if self._defenses.rows else {}
        return {name: table.to_csv(index=False) for name, table in tables.items()}

    def _page(self) -> str:
        texts = Texts()
        figures = [
            shown(about, attempt(about[0], partial(self._figure, about[0])), texts) for about in (FRONTS, GROWTH)
        ]
        return render(
            self._sides, self._rows, self._settings, self._effects, self._defenses, self.notes, figures, texts
        )

    def __repr__(self) -> str:
        return f"<ComparedRuns {', '.join(side.name for side in self._sides)}>"


def compare_runs(*places: Path | str) -> ComparedRuns:
    """Read several runs, finished or not, to hold them against each other; the first is what others are held against.

    Raises:
        UserError: if there are not two, one is given twice, or with what is wrong with each that cannot be read.

    Example:
        >>> compare_runs("runs/tpe", "runs/random")  # doctest: +SKIP
        <ComparedRuns tpe, random>
    """
    return ComparedRuns(read_sides([str(place) for place in places]))
