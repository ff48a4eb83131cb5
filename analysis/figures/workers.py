"""What workers did when: the trials of each, what they computed, and when one waited while others ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import plotly.graph_objects as go

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.formatting import count
from ubt.common.formatting import duration
from ubt.trials.record import StageRecord, TrialRecord

MOST_BARS = 1500
"""Of more stages, trials or waits the longest are bars."""
MOST_LANES = 64
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255", "#44AA99", "#332288")
TRIAL, WAITING = "rgba(128, 134, 145, 0.30)", "rgba(128, 134, 145, 0.12)"
_SHORTEST = 0.002
"""Of the whole time: a shorter wait is no bar."""

Span = tuple[float, float]
"""From when to when, in seconds since 1970."""


@dataclass(frozen=True)
class Bar:
    """What one lane did for a while: a trial, a stage that it computed, or nothing."""

    lane: str
    start: float
    """Seconds since 1970."""
    seconds: float
    trial: str = ""
    stage: str = ""
    reused_by: int = 0
    """How many trials found the stage's result in the store."""


@dataclass(frozen=True)
class WorkersInfo:
    """What was computed, in the lanes of its nodes: one for each trial that a node ran at the same time."""

    stages: tuple[Bar, ...]
    trials: tuple[Bar, ...]
    """Each start of a trial. What no stage of it covers is reading what was there, and publishing."""
    waits: tuple[Bar, ...]
    """When a lane had no trial while another one had."""
    lanes: tuple[str, ...]
    left_out: int
    """How many shorter stages are not shown."""


def workers_info(findings: Findings) -> WorkersInfo | Absent:
    """Work out the bars; absent where records do not say when stages began."""
    reused = Counter(stage.key for record in findings.run.records for stage in record.stages if stage.reused)
    trials, computed, lanes = _laid(findings.run.records)
    stages = [replace(bar, reused_by=reused[key]) for bar, key in computed]
    if not stages:
        return Absent("No record says when its stages were computed.")
    lanes = lanes[:MOST_LANES]
    shown = _longest(bar for bar in stages if bar.lane in lanes)
    starts = _longest(bar for bar in trials if bar.lane in lanes)
    return WorkersInfo(shown, starts, _longest(_waits(trials, lanes)), tuple(lanes), len(stages) - len(shown))


def _laid(records: Iterable[TrialRecord]) -> tuple[list[Bar], list[tuple[Bar, str]], list[str]]:
    """Return the starts of trials in their lanes, the stages computed in them with their keys, and the lanes."""
    busy: dict[str, list[float]] = {}
    met: set[tuple[str, str]] = set()
    trials, stages = [], []
    for node, (start, end), record, computed in sorted(_starts(records), key=lambda one: one[1]):
        lanes = busy.setdefault(node, [])
        lane = next((at for at, until in enumerate(lanes) if until <= start + 0.001), len(lanes))
        if lane == len(lanes):
            lanes.append(0.0)
        lanes[lane] = end
        name = _lane(node, lane)
        trials.append(Bar(name, start, end - start, record.trial))
        for stage, (began, ended) in computed:
            if (stage.key, stage.started_at) not in met:  # which more than one record may say
                met.add((stage.key, stage.started_at))
                stages.append((Bar(name, began, ended - began, record.trial, stage.stage), stage.key))
    return trials, stages, [_lane(node, lane) for node in sorted(busy) for lane in range(len(busy[node]))]


def _lane(node: str, number: int) -> str:
    return f"{node} · {number + 1}"


Start = tuple[str, Span, TrialRecord, list[tuple[StageRecord, Span]]]
"""Its node, from when to when, its trial, and what it computed."""


def _starts(records: Iterable[TrialRecord]) -> Iterator[Start]:
    """Yield each start of each trial; of records that do not say when they began, the time of their stages."""
    for record in records:
        found = ((stage, _span(stage.started_at, stage.ended_at)) for stage in record.stages if not stage.reused)
        computed = [(stage, span) for stage, span in found if span]
        for attempt in record.attempts:
            span = _span(attempt.started_at, attempt.ended_at)
            if span is None and attempt.started_at == record.started_at and (began := _time(record.started_at)):
                span = (began, began + record.seconds)
            if span:
                own = _in_turn(computed, span, attempt.node)
                computed = [one for one in computed if one not in own]
                end = max([span[1], *(ended for _, (_, ended) in own)])
                yield attempt.node or "worker", (span[0], end), record, own
        for stage, span in computed:
            yield stage.node or "worker", span, record, [(stage, span)]


def _in_turn(computed: Sequence[tuple[StageRecord, Span]], span: Span, node: str) -> list[tuple[StageRecord, Span]]:
    """Return what a trial's own worker computed in a span; the rest was computed beside it, by another one's.

    A trial runs its stages one after the other, but publishes one while it computes the next.
    """
    found: list[tuple[StageRecord, Span]] = []
    free_from = span[0] - 1
    for stage, (began, ended) in computed:
        if free_from <= began <= span[1] and (stage.node or node) == node:
            found.append((stage, (began, ended)))
            free_from = began + min(stage.spent_seconds, ended - began) - 1  # of what clocks and records round off
    return found


def _waits(trials: Sequence[Bar], lanes: Sequence[str]) -> Iterator[Bar]:
    """Yield when a lane had no trial, before its last one, while any other had."""
    first = min(bar.start for bar in trials)
    last = max(bar.start + bar.seconds for bar in trials)
    shortest = _SHORTEST * (last - first)
    running = _joined(((bar.start, bar.start + bar.seconds) for bar in trials), shortest)
    for lane in lanes:
        free_from = first
        for bar in sorted((bar for bar in trials if bar.lane == lane), key=lambda bar: bar.start):
            for start, end in running if bar.start - free_from > shortest else ():
                began, ended = max(start, free_from), min(end, bar.start)
                if ended - began > shortest:
                    yield Bar(lane, began, ended - began)
            free_from = max(free_from, bar.start + bar.seconds)


def _joined(spans: Iterable[Span], apart: float) -> list[Span]:
    """Return when any of the spans holds, without overlaps; those that are less than so many seconds apart are one."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + apart:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _longest(bars: Iterable[Bar]) -> tuple[Bar, ...]:
    kept = sorted(bars, key=lambda bar: -bar.seconds)[:MOST_BARS]
    return tuple(sorted(kept, key=lambda bar: bar.start))


def _span(start: str, end: str) -> Span | None:
    began, ended = _time(start), _time(end)
    return None if began is None or ended is None else (began, ended)


def _time(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def draw_workers(info: WorkersInfo) -> go.Figure:
    """Draw a bar a stage in one for its trial, and one where a lane waits."""
    names = 2 + len({bar.stage for bar in info.stages})  # three side by side on a narrow page, where they need most
    figure = go.Figure(layout=base.blank(height=130 + 10 * names + 24 * len(info.lanes)))
    began = min(bar.start for bar in (*info.trials, *info.stages))
    _add(figure, "waiting for a trial", info.waits, began, WAITING, 0.8, pattern="/")
    _add(figure, "trial: reading, publishing", info.trials, began, TRIAL, 0.8)
    for at, stage in enumerate(dict.fromkeys(bar.stage for bar in info.stages)):
        bars = [bar for bar in info.stages if bar.stage == stage]
        _add(figure, stage, bars, began, COLOURS[at % len(COLOURS)], 0.6)
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(title="minutes since the first trial began")
    lanes = [base.plain(lane) for lane in info.lanes]
    figure.update_yaxes(categoryorder="array", categoryarray=lanes[::-1], showgrid=False, tickfont={"size": 11})
    return figure


def _add(
    figure: go.Figure, name: str, bars: Sequence[Bar], began: float, colour: str, width: float, pattern: str = ""
) -> None:
    if bars:
        figure.add_trace(
            go.Bar(
                orientation="h",
                name=base.plain(name),
                y=[base.plain(bar.lane) for bar in bars],
                base=[round((bar.start - began) / 60, 3) for bar in bars],
                x=[round(bar.seconds / 60, 3) for bar in bars],
                width=width,
                marker={"color": colour, "line": {"width": 0}, "pattern": {"shape": pattern, "fgcolor": base.INK}},
                customdata=[bar.trial for bar in bars],
                text=[_hover(bar) for bar in bars],
                textposition="none",
                hovertemplate="%{text}<extra></extra>",
            )
        )


def _hover(bar: Bar) -> str:
    if not bar.trial:
        return f"{duration(bar.seconds)} without a trial"
    reused = f"<br>reused by {count(bar.reused_by, 'trial')}" if bar.reused_by else ""
    return f"{base.plain(bar.trial)}{' ' * bool(bar.stage)}{base.plain(bar.stage)}, {duration(bar.seconds)}{reused}"
