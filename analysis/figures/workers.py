"""What workers did when: every stage that was computed, on the node that computed it, over the time of the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

import plotly.graph_objects as go

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.formatting import count
from ubt.common.formatting import duration

MOST_BARS = 1500
"""Of more stages the longest are bars."""
MOST_LANES = 64
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255", "#44AA99")


@dataclass(frozen=True)
class Work:
    """One stage as it was computed."""

    trial: str
    stage: str
    lane: str
    start: datetime
    seconds: float
    reused_by: int = 0
    """How many trials found its result in the store."""


@dataclass(frozen=True)
class WorkersInfo:
    """What was computed, in the lanes of its nodes: one for each stage that a node computed at the same time."""

    works: tuple[Work, ...]
    lanes: tuple[str, ...]
    left_out: int
    """How many shorter stages are not shown."""


def workers_info(findings: Findings) -> WorkersInfo | Absent:
    """Work out the bars; absent where records do not say when stages began."""
    met: set[tuple[str, str, str]] = set()
    works: list[tuple[str, str, str, datetime, float, str]] = []
    reused = Counter(stage.key for record in findings.run.records for stage in record.stages if stage.reused)
    for record in findings.run.records:
        for stage in record.stages:
            start, end = _time(stage.started_at), _time(stage.ended_at)
            once = (stage.stage, stage.key, stage.started_at)
            if stage.reused or start is None or end is None or once in met:
                continue
            met.add(once)
            works.append(
                (record.trial, stage.stage, stage.node or "worker", start, (end - start).total_seconds(), stage.key)
            )
    if not works:
        return Absent("No record says when its stages were computed.")
    kept = sorted(sorted(works, key=lambda one: -one[4])[:MOST_BARS], key=lambda one: one[3])
    busy: dict[str, list[float]] = {}
    found = []
    for trial, name, node, start, seconds, key in kept:
        lanes = busy.setdefault(node, [])
        began = start.timestamp()
        lane = next((at for at, until in enumerate(lanes) if until <= began + 0.001), len(lanes))
        if lane == len(lanes):
            lanes.append(0.0)
        lanes[lane] = began + seconds
        found.append(Work(trial, name, f"{node} · {lane + 1}", start, seconds, reused[key]))
    names = [f"{node} · {lane + 1}" for node in sorted(busy) for lane in range(len(busy[node]))][:MOST_LANES]
    shown = tuple(work for work in found if work.lane in names)
    return WorkersInfo(shown, tuple(names), len(works) - len(shown))


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def draw_workers(info: WorkersInfo) -> go.Figure:
    """Draw a bar a stage; gaps are waiting, or stages that were found in the store."""
    figure = go.Figure(layout=base.blank(height=130 + 24 * len(info.lanes)))
    began = min(work.start for work in info.works)
    for at, stage in enumerate(dict.fromkeys(work.stage for work in info.works)):
        works = [work for work in info.works if work.stage == stage]
        figure.add_trace(
            go.Bar(
                orientation="h",
                name=base.plain(stage),
                y=[base.plain(work.lane) for work in works],
                base=[round((work.start - began).total_seconds() / 60, 3) for work in works],
                x=[round(work.seconds / 60, 3) for work in works],
                marker={"color": COLOURS[at % len(COLOURS)], "line": {"width": 0}},
                customdata=[work.trial for work in works],
                text=[_hover(work) for work in works],
                textposition="none",
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.update_layout(barmode="overlay", bargap=0.25)
    figure.update_xaxes(title="minutes since the first stage began")
    lanes = [base.plain(lane) for lane in info.lanes]
    figure.update_yaxes(categoryorder="array", categoryarray=lanes[::-1], showgrid=False, tickfont={"size": 11})
    return figure


def _hover(work: Work) -> str:
    reused = f"<br>reused by {count(work.reused_by, 'trial')}" if work.reused_by else ""
    return f"{base.plain(work.trial)} {base.plain(work.stage)}, {duration(work.seconds)}{reused}"
