"""A run for notebooks and programs: its trials, stages, epochs and configurations as tables, and its figures."""

from __future__ import annotations

import difflib
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from analysis.comparison import Comparison, compare, comparison_markdown, comparison_table
from analysis.effects import Effects, find_effects, find_importances
from analysis.effects.output import effects_latex, effects_markdown, effects_table, importances_table
from analysis.figures import FIGURES, Absent
from analysis.findings import Findings, find
from analysis.formatting import count, listed
from analysis.front.tables import epochs_table, members_table
from analysis.paper import PAPER_FIGURES, paper_figure
from analysis.records import RunRecords, read_run
from analysis.summary import Summary, summarise
from analysis.tables import classes_table, configurations_table, stages_table, trials_table
from ubt.common.errors import Problem, UserError
from ubt.trials.record import State, TrialRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run:
    """One study's run, finished or not, as `load_run` reads it.

    Tables are tidy: one line a thing, one column a property, rates as fractions in [0, 1]. A setting's column is called
    by its dotted path, as `defense.unlearn_samples`; it holds the base's value where a trial did not change it, and is
    missing where the trial's defense has no such setting. `val_` is what searches and the choice see, `test_` what to
    report, and `poisoned_val_` and `poisoned_test_` are the victim before the defense; `_low` and `_high` are the ends
    of the 95 % interval (Wilson's for one seed, Student's over several).

    Each table is made when it is first asked for, and then kept.

    Example:
        >>> import analysis
        >>> run = analysis.load_run("runs/demo")  # doctest: +SKIP
        >>> run.front[["trial", "val_asr", "val_ca", "test_asr", "test_ca"]]  # doctest: +SKIP
        >>> run.figure("front")  # doctest: +SKIP
    """

    def __init__(self, read: RunRecords) -> None:
        self._read = read

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._read.name

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._read.folder

    @property
    def ca_floor(self) -> float:
        """How much clean accuracy, as a fraction, a choice may lose against the poisoned model."""
        return self._read.ca_floor

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """The record of every trial, by number: all that is known of it."""
        return self._read.records

    @cached_property
    def findings(self) -> Findings:
        """Configurations, front and choice as objects: what figures are made from."""
        return find(self._read)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One line a trial, by number.

        `number`, `trial`, `state` (DONE, RUNNING, FAILED, PRUNED, INTERRUPTED), `reason`, `seed`; a column for each
        searched or changed setting; for each split `<split>_asr`, `_asr_low`, `_asr_high`, `_asr_images`, the same of
        `_ca`, `_ca_top5`, `_triggered_accuracy` and `_subset` (`all` its images, or a part); `clean_val_ca` of a loaded
        clean model; `seconds` (wall time), `stages_computed`, `stages_reused`, `attempts`, `started_at` (UTC), `node`,
        `device`, `commit`; what each sanity gate found and measured, as `gate.<name>` and `gate.<name>.measured`; and
        for each stage its diagnostics as `<stage>.<name>`, its `.seconds`, `.reused` and `.peak_memory_bytes`.

        Example:
            >>> run.trials.groupby("defense.overfit_epochs")[["test_asr", "test_ca"]].mean()  # doctest: +SKIP
        """
        return trials_table(self._read)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One line an epoch of a trial, in order.

        `number`, `trial`, `seed`, `stage`, `epoch` (from 1 in each stage), `seconds`, `loss`. Of epochs of a defense,
        after which the model was evaluated: `position` (from 1, counted on through the stages), `val_asr` and `val_ca`
        with their intervals, and whether the model is on the `front`, or `chosen`. `test_asr` and `test_ca` of those at
        which a trial of that seed ends, this one or another.

        Example:
            >>> run.epochs.pivot_table(index="position", columns="trial", values="val_asr")  # doctest: +SKIP
        """
        return epochs_table(self.findings)

    @cached_property
    def stages(self) -> pd.DataFrame:
        """One line a stage of a trial, in the order in which it ran.

        `number`, `trial`, `seed`, `stage`, `key` (of its artifact in the store), `complete`, `reused` (found in the
        store), `seconds` (from nothing), `work_seconds` (without evaluation and publishing), `spent_seconds` (by this
        trial), `saved_seconds` (by sharing), `peak_memory_bytes`, `epochs` (how many), `node`, `started_at`, `ended_at`
        and `computed_by` (`STUDY/TRIAL`) of its computation, which a reused stage has in common with others, and
        `diagnostics.<name>`.

        Example:
            >>> run.stages.groupby("stage")["spent_seconds"].sum()  # doctest: +SKIP
        """
        return stages_table(self._read)

    @cached_property
    def classes(self) -> pd.DataFrame:
        """One line a class of each model of a trial, as counts of images.

        `number`, `trial`, `seed`, `rates` (`val` and `test` of the defended model, `poisoned_val`, `poisoned_test`,
        `clean_val`), `class`, `images`, `correct` (of those), `triggered` and `hits` (of those, taken for the target).

        Example:
            >>> lost = run.classes.groupby(["rates", "class"])[["correct", "images"]].sum()  # doctest: +SKIP
        """
        return classes_table(self._read)

    @cached_property
    def configurations(self) -> pd.DataFrame:
        """One line a configuration, in the order of their first trials: trials that differ by seed alone are one.

        `trial` (the first that is done), `seeds_done`, `seeds_tried`, `chosen`; a column for each setting; and for each
        split `<split>_asr`, `_asr_low`, `_asr_high`, `_ca`, `_ca_low`, `_ca_high`: means over seeds.

        Example:
            >>> run.configurations.nsmallest(5, "val_asr")  # doctest: +SKIP
        """
        return configurations_table(self.findings, self.findings.configurations)

    @cached_property
    def front(self) -> pd.DataFrame:
        """The configurations on the front, by rising ASR: no other is better in both rates on validation.

        At their ends or, with `objectives.epochs: every`, at earlier epochs: an earlier one that no trial has judged in
        full is called `TRIAL@EPOCH`. Columns as of `configurations`, `front_chance` (the probability of being on the
        front, by a bootstrap over seeds and images) and `like_chosen` (neither rate differs from the choice's, by 95 %
        intervals). Empty in a comparison: its victims differ.
        """
        return members_table(self.findings)

    @property
    def chosen(self) -> pd.Series | None:
        """The line of `configurations` that is chosen; None if none keeps clean accuracy, and in a comparison.

        Example:
            >>> run.chosen["test_asr"]  # doctest: +SKIP
        """
        chosen = self.findings.chosen
        return configurations_table(self.findings, [chosen]).iloc[0] if chosen else None

    @cached_property
    def summary(self) -> Summary:
        """The result in a few numbers: states, choice, front, hypervolume, and where the time went."""
        return summarise(self.findings)

    @cached_property
    def comparison(self) -> pd.DataFrame | None:
        """Of a run of several defenses, one line for each on each attack; None for a run of one.

        `defense`, `attack`, `asr`, `asr_low`, `asr_high`, `ca`, `ca_low`, `ca_high` on the test split, `seconds` of the
        defense's own work, `seeds_done`, `seeds_tried`. Two lines more a defense are its mean and its worst case.

        Example:
            >>> run.comparison.pivot(index="defense", columns="attack", values="asr")  # doctest: +SKIP
        """
        return comparison_table(self._comparison) if self._comparison else None

    @property
    def comparison_markdown(self) -> str:
        """The same as a Markdown table, and what it says in words; "" for a run of one defense."""
        return comparison_markdown(self._comparison) if self._comparison else ""

    @cached_property
    def _comparison(self) -> Comparison | None:
        return compare(self.findings)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """What each change does to both rates: one line for each component left out and each value of each setting.

        And one for each interaction of two settings. `kind` (effect, interaction), `name`, `factor`, `before`, `after`,
        `split`, `seeds` (pairs), `settings` (of the rest, that it is the mean over); the differences `asr` and `ca` as
        fractions with `_low`, `_high`, `_spread` (what the interval is of: `seeds`, or `images`), `_p` and `_p_holm`;
        and of the chain `recall`, `auroc`, `purity` and `tokens`, each with its `_difference`. Empty for a search by
        results and for a comparison, which hold no contrasts.

        Example:
            >>> run.effects.query("ca_p_holm < 0.05")[["name", "ca", "ca_low", "ca_high"]]  # doctest: +SKIP
        """
        return effects_table(self._effects)

    @property
    def effects_markdown(self) -> str:
        """The same as a Markdown table, and what is to be known of it; "" for a run that holds no contrasts."""
        return effects_markdown(self._effects) if self._effects else ""

    @property
    def effects_latex(self) -> str:
        """The same as a LaTeX tabular; "" for a run that holds no contrasts."""
        return effects_latex(self._effects) if self._effects else ""

    @cached_property
    def _effects(self) -> Effects:
        return find_effects(self.findings)

    @cached_property
    def importances(self) -> pd.DataFrame:
        """How much each knob of a search or a grid matters, by Optuna's evaluators, on validation; a line each.

        `setting`; for each rate its `_variance` (fANOVA), `_among_best` (PED-ANOVA) and `_trend` (Spearman);
        `front_among_best`. Empty unless several knobs were varied at once in a dozen configurations or more.
        """
        return importances_table(find_importances(self.findings))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures: interactive ones, then those for papers. Not every run has the data for all."""
        return (*FIGURES.names(), *(kind.name for kind in PAPER_FIGURES))

    def figure(self, name: str) -> go.Figure | Figure:
        """Return a figure, which shows itself in a notebook: plotly's, or matplotlib's of those for papers.

        Args:
            name: one of `figures`, as `front`, `knobs`, `epochs`, `stages`, `figure3`, `comparison`.

        Raises:
            UserError: if there is no figure of that name, or the run has not the data for it; says what is missing.

        Example:
            >>> run.figure("front").write_html("front.html")  # doctest: +SKIP
            >>> run.figure("comparison").savefig("comparison.pdf")  # doctest: +SKIP
        """
        paper = {kind.name: kind for kind in PAPER_FIGURES}
        if name in paper:
            figure = paper_figure(paper[name], self.findings)
        elif name in FIGURES:
            figure = FIGURES.get(name).figure(self.findings)
        else:
            near = difflib.get_close_matches(name, self.figures, n=1)
            advice = f"did you mean `{near[0]}`?" if near else ""
            raise UserError(Problem("figure", f"unknown; allowed: {', '.join(self.figures)}", name, advice))
        if isinstance(figure, Absent):
            raise UserError(Problem(f"figure `{name}`", f"cannot be drawn from this run: {figure.why}"))
        return figure

    def __repr__(self) -> str:
        states = Counter(record.state for record in self.records)
        found = listed(f"{states[state]:,} {state.lower()}" for state in State if states[state])
        return f"<Run {self.name}: {count(len(self.records), 'trial')}, {found}>"


def load_run(folder: Path | str) -> Run:
    """Read a run folder, finished or not, also one that version 0.1 wrote. Needs neither torch nor Ray.

    Raises:
        UserError: if the folder is no run, its study or a record cannot be read, or there are no records.

    Example:
        >>> run = load_run("runs/demo")  # doctest: +SKIP
        >>> run  # doctest: +SKIP
        <Run demo: 24 trials, 24 done>
        >>> run.trials  # doctest: +SKIP
    """
    return Run(read_run(folder))
