"""What a study has come to, in MLflow's terms: the numbers that its list shows first, and a description in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.comparison import compare, comparison_markdown
from analysis.effects import find_effects
from analysis.effects.output import effects_markdown
from analysis.effects.page import ablation_opening
from analysis.findings import Findings
from analysis.formatting import changes_text, count, percent
from analysis.front.page import front_table
from analysis.opening.words import compared, opening
from analysis.page import Cell, PageTable, unfinished
from analysis.points.configurations import Estimate, Outcome
from analysis.summary import Summary
from sweeps.tracking.outcome import RunOutcome
from sweeps.tracking.payload import NOTE, Payload, name_of, setting_at, shortened, text_of
from sweeps.tracking.study_payload import how_to_go_on
from sweeps.tracking.view import View
from ubt.trials.record import State, TrialRecord

_MOST_ROWS, _MOST_FAILURES = 20, 10
"""Of tables in a description: the report has the rest."""
_LONGEST_NOTE, _LONGEST_TABLE = 7800, 4500
"""MLflow refuses what is longer than 8000, and a table that is cut is none."""


FIGURE = "Clean accuracy against attack success of every trial, with the front and the choice"


def of_outcome(
    shown: Payload, outcome: RunOutcome, folder: Path, files: Iterable[str], running: bool = False
) -> Payload:
    """Return what the study's run shows, with what came of it, or has so far.

    Args:
        shown: what it shows without.
        outcome: what came of it.
        folder: the run folder.
        files: names of artifacts to link to.
        running: more is to come.
    """
    findings, summary = outcome.findings, outcome.run.summary
    records = findings.run.records
    commits = dict.fromkeys(record.commit for record in records if record.commit)
    tags = {
        "front": text_of(", ".join(summary.front)),
        "chosen": summary.chosen.name if summary.chosen else "",
        "rule": summary.rule,
        "seeds": str(len({record.seed for record in records})),
        "mlflow.source.git.commit": next(reversed(commits), "").removesuffix("+"),
        NOTE: shortened(
            _note(outcome, how_to_go_on(folder, shown.tags.get("mlflow.source.name", "")), set(files), running),
            _LONGEST_NOTE,
        ),
    }
    metrics = {name_of(name): value for name, value in _metrics(findings, summary) if math.isfinite(value)}
    if running:  # what was on the front then may turn out to be no part of it: the whole curve comes at the end
        metrics |= {f"so_far/{point.name}": point.value for point in outcome.hypervolumes[-1:]}
    curves = () if running else outcome.hypervolumes
    ended = sum(record.state.ended for record in records)
    return replace(shown, tags={**shown.tags, **tags}, metrics=metrics, step=ended, curves=(*shown.curves, *curves))


def view_of(view: View, outcome: RunOutcome) -> View:
    """Return a study's prepared page with what its trials varied, and measured."""
    run = outcome.findings.run
    paths = [
        path for path in run.knobs if any(not isinstance(setting_at(record, path), dict) for record in run.records)
    ]
    seeds = len({record.seed for record in run.records})
    return replace(view, knobs=tuple(map(name_of, paths)), seeds=seeds, attacked=outcome.findings.attacked)


def _metrics(findings: Findings, summary: Summary) -> Iterator[tuple[str, float]]:
    if chosen := findings.chosen:
        yield from _rates("chosen/test", chosen.test)
        yield from _rates("chosen/val", chosen.val)
    victim = None if findings.run.compared else findings.victim
    if victim:
        yield from _rates("poisoned/test", victim.poisoned_test, intervals=False)
        yield from _rates("poisoned/val", victim.poisoned_val, intervals=False)
    if not findings.run.compared:
        yield "front_size", float(len(summary.front))
    yield "time/computed_h", summary.seconds.computed / 3600
    yield "time/saved_h", summary.seconds.saved / 3600
    yield "time/wall_h", summary.seconds.wall / 3600
    yield "trials/all", float(sum(summary.states.values()))
    yield from ((f"trials/{state.lower()}", float(number)) for state, number in summary.states.items() if number)


def _rates(name: str, found: Outcome | None, intervals: bool = True) -> Iterator[tuple[str, float]]:
    rates: dict[str, Estimate | None] = {"asr": found.asr, "ca": found.ca} if found else {}
    for rate, estimate in rates.items():
        if estimate is not None:
            yield f"{name}_{rate}", estimate.mean
            if intervals:
                yield f"{name}_{rate}_low", estimate.low
                yield f"{name}_{rate}_high", estimate.high


_RUNNING = "*The sweep is running: this is what has come of it so far.*"


def _note(outcome: RunOutcome, go_on: str, files: set[str], running: bool) -> str:
    """Return the description: what came of it first, then how it came about, then what to do with it."""
    findings, summary = outcome.findings, outcome.run.summary
    effects = find_effects(findings)
    ablation = bool(findings.run.ablation and effects)
    said = ablation_opening(findings, summary, effects) if ablation else opening(findings, summary)
    parts = [_RUNNING if running else "", f"## {said.title}", said.detail, *_choice(findings, summary), said.effort]
    lacking = not (running or findings.chosen is None or any(name.startswith("model/") for name in files))
    drawn = f"![{FIGURE}](image:figures/front.png)" if findings.front and "figures" in files else ""
    if ablation:
        parts += ["### Effects", _fitting(effects_markdown(effects))]
    if comparison := compare(findings):
        parts += ["### Comparison", _fitting(comparison_markdown(comparison))]
    elif findings.front and not ablation:
        parts += ["### The front", drawn, _table(front_table(findings))]
    return "\n\n".join(filter(None, (*parts, _failures(findings), _files(files, lacking), go_on)))


def _choice(findings: Findings, summary: Summary) -> Iterator[str]:
    """Say before and after, and which settings were chosen."""
    found = compared(findings.chosen)
    if summary.chosen is None or found is None:
        return
    split, before, after = found
    rows = [(f"{split} split", "attack success", "clean accuracy"), ("---", "---:", "---:")]
    rows.append(("poisoned model", *_both(before)))
    rows.append((f"chosen, {_link(summary.chosen.name)}", *_both(after)))
    yield _rows(rows)
    yield f"**Chosen settings:** {', '.join(changes_text(summary.chosen.config, findings.run.setting_names))}"


def _both(outcome: Outcome) -> tuple[str, str]:
    return _rate(outcome.asr), _rate(outcome.ca)


def _rate(estimate: Estimate | None) -> str:
    return f"{percent(estimate.mean)} ({estimate.interval})" if estimate else "–"


def _table(table: PageTable) -> str:
    """Return a table of the report's page in Markdown; names of trials are links to their runs."""
    head = [column.title for column in table.columns]
    rows = [head, ["---:" if column.kind == "number" else "---" for column in table.columns]]
    for cells in table.rows[:_MOST_ROWS]:
        rows.append([_cell(cell, column.kind == "name") for column, cell in zip(table.columns, cells, strict=True)])
    more = len(table.rows) - _MOST_ROWS
    return _fitting(_rows(rows)) + (f"\n\n… and {more:,} more, in the report." if more > 0 else "")


def _cell(cell: Cell, is_trial: bool) -> str:
    text = _link(cell.text) if is_trial else cell.text
    return " ".join(
        filter(None, (text, f"({cell.remark})" if cell.remark else "", f"**{cell.tag}**" if cell.tag else ""))
    )


def _link(name: str) -> str:
    """Return a link to a trial's run, of `t0007` or of its earlier epoch `t0007@3`."""
    return f"[{name}](trial:{name.partition('@')[0]})"


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows)


def _fitting(text: str) -> str:
    """Return a table, with what is said below it, without the rows for which there is no space."""
    lines = text.split("\n")
    while len("\n".join(lines)) > _LONGEST_TABLE:
        table = [number for number, line in enumerate(lines) if line.startswith("|")]
        if len(table) < 4:
            return shortened(text, _LONGEST_TABLE)
        del lines[table[-1]]
    dropped = text.count("\n") + 1 - len(lines)
    return "\n".join(lines) + (f"\n\n… and {count(dropped, 'row')} more, in the report." if dropped else "")


def _failures(findings: Findings) -> str:
    """Say which trials did not get to their end, and why."""
    found = unfinished(findings)
    if not found:
        return ""
    rows = [("trial", "state", "why"), ("---", "---", "---")]
    rows += [(f"[{record.trial}](trial:{record.trial})", record.state.lower(), _reason(record)) for record in found]
    more = len(found) - _MOST_FAILURES
    told = f"\n\n… and {more:,} more: filter by `tags.state != 'DONE'`." if more > 0 else ""
    return f"### Not finished\n\n{_rows(rows[: _MOST_FAILURES + 2])}{told}"


def _reason(record: TrialRecord) -> str:
    first = record.reason.partition("\n")[0] or ("pruned" if record.state is State.PRUNED else "no reason was recorded")
    return shortened(first, 160)


_LINKS = (
    ("report/index.html", "Report", "every trial, figure and table, in one page"),
    ("figures", "Figures", "front, knobs, epochs, importance and those for papers, as images"),
    ("model", "The cleaned model", "weights of the chosen trial, as open_clip loads them"),
    ("report/trials.csv", "Trials as CSV", "every trial with its settings and rates"),
    ("report/front.csv", "The front as CSV", "the configurations that no other one beats in both rates"),
)


_NO_MODEL = (
    "- The cleaned model is not here: the store has it no longer, or it is larger than `tracking.model_limit_mb`. "
    "`ubt export` writes it; with `--recompute` it is computed again."
)


def _files(there: set[str], lacks_model: bool) -> str:
    lines = [
        f"- [{title}]({'model' if name == 'model' else 'artifact'}:{name}): {what}"
        for name, title, what in _LINKS
        if any(file == name or file.startswith(f"{name}/") for file in there)
    ]
    lines += [_NO_MODEL] if lacks_model else []
    return "\n".join(("### Files", "", *lines)) if lines else ""
