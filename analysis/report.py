"""The report: one HTML page that needs no network, and the same numbers as CSV and JSON beside it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from analysis.comparison import Comparison, compare, comparison_table
from analysis.comparison.output import comparison_view
from analysis.costs import cost_table
from analysis.details.classes import class_table
from analysis.details.detail import details
from analysis.details.grid import grid
from analysis.effects import Effects, Importances, begin_importances, find_effects, find_importances
from analysis.effects.evaluator_process import EvaluatorProcess
from analysis.effects.importance import FEWEST
from analysis.effects.output import effects_latex, effects_table, importances_table
from analysis.effects.page import ablation_opening, effects_view
from analysis.figures import FIGURES, Absent, FigureKind, drawn
from analysis.figures.base import attempt
from analysis.findings import Findings, find
from analysis.formatting import changes_text
from analysis.front.page import front_table
from analysis.front.tables import epochs_table, members_table
from analysis.gates import gate_table
from analysis.nodes import node_table
from analysis.opening.words import opening
from analysis.page import reasons, trial_table
from analysis.paper import embedded_figures, style
from analysis.planned import planned_text
from analysis.printed.figures import figure_table
from analysis.records import PARTS, read_run
from analysis.rendering import Texts, as_json, figure_json, plotly_packed, tabulator_packed, template
from analysis.summary import Summary, summarise
from analysis.tables import trials_table
from ubt.artifacts.remote_folder import at_hand
from ubt.common.atomic_files import write_whole
from ubt.common.paths import RECORDS_FOLDER, REPORT_FOLDER

OF_ONE_DEFENSE = {"front", "knobs", "pairs", "parallel", "growth", "chain", "epochs"}
"""Figures that a comparison has nothing to show in: its defenses have no knobs in common, and no choice."""
OF_A_SEARCH = {"knobs", "pairs", "parallel", "growth"}
"""Figures that an ablation of components has nothing to show in: each component is left out once, beside the base."""
OF_COMPONENTS = {"components"}
"""Figures of an ablation alone."""
MOST_ROWS = 60
"""Of more trials the page has no table without JavaScript: it would be most of it."""


@dataclass(frozen=True)
class Report:
    """Where the report lies, and what it says in short."""

    page: Path
    files: tuple[Path, ...]
    """Every file written, the page first."""
    summary: Summary


def write_report(run_folder: Path | str) -> Report:
    """Write `<run>/report/`: `index.html`, `trials.csv`, `front.csv`, `epochs.csv` and `summary.json`, each whole.

    The data of each figure lie beside them, as `figure-front.csv`. A run of several defenses has a `comparison.csv`
    besides, one that holds effects an `effects.csv` and an `effects.tex`, a search of several knobs an
    `importances.csv`. Of a run behind an address the report lies in the cache too, which is what is returned.

    Raises:
        UserError: if the folder is no run, or a record cannot be read, or the address not written.
        OSError: if the report cannot be written.

    Example:
        >>> write_report("runs/demo").page  # doctest: +SKIP
        PosixPath('runs/demo/report/index.html')
    """
    with at_hand(run_folder, PARTS, REPORT_FOLDER) as folder, _without_collection(), _evaluators(folder) as process:
        findings = find(read_run(folder))
        summary = summarise(findings)
        contents = report_contents(findings, summary, weighed=begin_importances(findings, process))
        files = tuple(write_whole(folder / REPORT_FOLDER / name, content) for name, content in contents.items())
        return Report(files[0], files, summary)


def load() -> None:
    """Load what figures are drawn with, and would load when the first one is: two seconds."""
    style.load()
    import_module("sklearn.metrics")


def _evaluators(folder: Path) -> AbstractContextManager[EvaluatorProcess | None]:
    """Have a process for importances, which needs its time to begin, where a run has trials enough for them."""
    records = (folder / RECORDS_FOLDER).glob("*.json")
    return closing(EvaluatorProcess()) if sum(1 for _ in records) >= FEWEST else nullcontext()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Put off Python's search for cycles: over the records of thousands of trials it is a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def report_contents(
    findings: Findings,
    summary: Summary | None = None,
    live: int | None = None,
    weighed: Callable[[], Importances] | None = None,
) -> dict[str, str]:
    """Return file name → content of a run's report, the page first.

    `live` is which version of a running sweep's page it is: such a page asks where it came from for newer ones.
    `weighed` waits for importances that are worked out elsewhere; without it they are worked out here.
    """
    summary, comparison, effects = summary or summarise(findings), compare(findings), find_effects(findings)
    figures = {name: drawn(name, findings) for name in _shown(findings)}
    tables = {
        "trials.csv": trials_table(findings.run).to_csv(index=False),
        "front.csv": members_table(findings).to_csv(index=False),
        "epochs.csv": epochs_table(findings).to_csv(index=False),
        "summary.json": summary.model_dump_json(indent=2) + "\n",
    }
    if comparison:
        tables["comparison.csv"] = comparison_table(comparison).to_csv(index=False)
    if effects:
        tables["effects.csv"] = effects_table(effects).to_csv(index=False)
        tables["effects.tex"] = effects_latex(effects)
    for name, (_, figure) in figures.items():
        data = Absent("") if isinstance(figure, Absent) else attempt(name, partial(figure_table, figure))
        if not isinstance(data, Absent):
            tables[f"figure-{name}.csv"] = data.to_csv(index=False)
    importances = weighed() if weighed else find_importances(findings)  # late: elsewhere they are worked out meanwhile
    if importances:
        tables["importances.csv"] = importances_table(importances).to_csv(index=False)
    page = render(findings, summary, comparison, effects, importances, figures, live)
    return {"index.html": page, **tables}


def _shown(findings: Findings) -> list[str]:
    """Return the names of the figures for a run's kind of study; those of components are the first of an ablation."""
    names = FIGURES.names()
    if findings.run.compared:
        return [name for name in names if name not in OF_ONE_DEFENSE | OF_COMPONENTS]
    if findings.run.leaves_out:
        first = [name for name in names if name in OF_COMPONENTS]
        return first + [name for name in names if name not in OF_A_SEARCH | OF_COMPONENTS]
    return [name for name in names if name not in OF_COMPONENTS]


def render(
    findings: Findings,
    summary: Summary,
    comparison: Comparison | None,
    effects: Effects,
    importances: Importances,
    figures: Mapping[str, tuple[FigureKind[Any], go.Figure | Absent]],
    live: int | None = None,
) -> str:
    """Return the page as HTML. Names, reasons and settings are escaped: a run may come from anywhere."""
    ablation, texts = bool(findings.run.ablation and effects), Texts()
    views = [FigureView.of(kind, figure, texts) for kind, figure in figures.values()]
    paper = {figure.name: figure for figure in embedded_figures(findings)}
    return template("report.html.j2").render(
        run=findings.run,
        live=live,
        summary=summary,
        opening=ablation_opening(findings, summary, effects) if ablation else opening(findings, summary),
        ablation=ablation,
        effects=effects_view(effects, importances, findings.base if findings.run.leaves_out else None),
        settings=chosen_settings(findings, summary),
        chosen=findings.chosen,
        comparison=comparison_view(comparison) if comparison else None,
        compared=paper.pop("comparison"),
        paper=tuple(paper.values()),
        figures=views,
        missing=missing(views),
        measured=bool(findings.measured),
        front=front_table(findings),
        trials=trial_table(findings) if len(findings.run.records) <= MOST_ROWS else None,
        grid=as_json(grid(findings)),
        details=as_json(details(findings)),
        classes=class_table(findings),
        gates=gate_table(findings),
        nodes=node_table(findings),
        planned_words=planned_text(summary.planned, summary.seconds.wall) if summary.planned else "",
        costs=cost_table(summary.planned),
        unfinished=reasons(findings),
        provenance=provenance(findings),
        texts=texts.json,
        plotly=plotly_packed(),
        tabulator=tabulator_packed(),
    )


def chosen_settings(findings: Findings, summary: Summary) -> tuple[str, ...]:
    """Return the chosen trial's searched and changed settings, each as `name = value`."""
    return changes_text(summary.chosen.config, findings.run.setting_names) if summary.chosen else ()


@dataclass(frozen=True)
class FigureView:
    """A figure as the page takes it: its JSON, or why it is absent."""

    kind: FigureKind[object]
    json: Markup
    absent: str
    height: int = 0
    """In pixels: its place on the page before it is drawn."""

    @classmethod
    def of(cls, kind: FigureKind[Any], figure: go.Figure | Absent, texts: Texts) -> FigureView:
        """Return a figure of a run as the page takes it."""
        if isinstance(figure, Absent):
            return cls(kind, Markup(), figure.why)
        return cls(kind, figure_json(figure, texts), "", int(figure.layout.height or 450))


def missing(views: Iterable[FigureView]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return why figures are absent, each reason once, with the titles of those that it keeps from being drawn."""
    found: dict[str, tuple[str, ...]] = {}
    for view in views:
        if view.absent:
            found[view.absent] = (*found.get(view.absent, ()), view.kind.title)
    return tuple(found.items())


def provenance(findings: Findings) -> tuple[tuple[str, str], ...]:
    """Return what the run was made with: (what, the distinct values over its trials)."""
    records = findings.run.records
    versions = dict.fromkeys(f"{name} {version}" for record in records for name, version in record.versions.items())
    found = (
        ("code", _distinct(record.commit for record in records)),
        ("device", _distinct(record.device for record in records)),
        ("libraries", ", ".join(versions)),
        ("started", min((record.started_at for record in records if record.started_at), default="")),
    )
    return tuple((what, value) for what, value in found if value)


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))
