"""Where the time went: seconds computed, and seconds saved by reuse, of every stage."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.findings import Findings
from ubt.common.formatting import duration
from ubt.trials.record import StageRecord


@dataclass(frozen=True)
class StageTimes:
    """One stage over all trials."""

    stage: str
    computed: int
    reused: int
    computed_seconds: float
    reused_seconds: float
    """What the reused ones, and the epochs continued from, would have taken."""

    @property
    def seconds(self) -> float:
        """Return the time of all, computed or not."""
        return self.computed_seconds + self.reused_seconds


@dataclass(frozen=True)
class StagesInfo:
    """All stages, in the order in which trials run them."""

    stages: tuple[StageTimes, ...]


def stages_info(findings: Findings) -> StagesInfo | Absent:
    """Work out the figure, over all trials in any state; absent if no stage was finished."""
    groups: dict[str, list[StageRecord]] = {}
    # Longest pipelines first: they show the order of the stages that shorter ones leave out.
    for record in sorted(findings.run.records, key=lambda record: -len(record.stages)):
        for stage in record.stages:
            groups.setdefault(stage.stage, []).append(stage)
    if not groups:
        return Absent("No stage of any trial is finished, so no time has been measured.")
    return StagesInfo(tuple(_times(name, stages) for name, stages in groups.items()))


def _times(name: str, stages: list[StageRecord]) -> StageTimes:
    computed = sum(not stage.reused for stage in stages)
    spent = sum(stage.spent_seconds for stage in stages)
    saved = sum(stage.saved_seconds for stage in stages)
    return StageTimes(name, computed, len(stages) - computed, spent, saved)


def draw_stages(info: StagesInfo) -> go.Figure:
    """Draw the figure: a bar a stage, computed seconds and beside them the saved ones."""
    figure = go.Figure(layout=base.blank(height=120 + 40 * len(info.stages)))
    longest = max(stage.seconds for stage in info.stages)
    unit, seconds = next((unit for unit in UNITS if longest >= 3 * unit[1]), UNITS[-1])
    computed = [stage.computed_seconds / seconds for stage in info.stages]
    reused = [stage.reused_seconds / seconds for stage in info.stages]
    figure.add_trace(_bar(info, "computed", computed, seconds, {"color": base.FRONT}))
    figure.add_trace(_bar(info, "reused", reused, seconds, HATCHED))
    figure.add_trace(_counts(info, seconds))
    figure.update_layout(barmode="stack", bargap=0.35, legend={"traceorder": "normal"})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title=f"{unit}, added up over trials", range=[0, 1.02 * longest / seconds or 1])
    figure.update_layout(margin={"r": 170})
    return figure


UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


HATCHED: dict[str, object] = {
    "color": base.OTHER,
    "pattern": {"shape": "/", "size": 6, "solidity": 0.3, "fillmode": "replace", "fgcolor": base.OTHER},
    "line": {"color": base.OTHER, "width": 1},
}


def _bar(info: StagesInfo, name: str, times: list[float], seconds: float, marker: dict[str, object]) -> go.Bar:
    return go.Bar(
        orientation="h",
        name=name,
        y=[base.plain(stage.stage) for stage in info.stages],
        x=[time or None for time in times],  # a bar of no length would still show its outline
        marker=marker,
        hovertext=[duration(time * seconds) for time in times],
        hovertemplate=f"<b>%{{y}}</b>, {name}: %{{hovertext}}<extra></extra>",
    )


def _counts(info: StagesInfo, seconds: float) -> go.Scatter:
    """Return the counts as text behind the bars, where they are legible however short a bar is."""
    return go.Scatter(
        x=[stage.seconds / seconds for stage in info.stages],
        y=[base.plain(stage.stage) for stage in info.stages],
        text=[f" {stage.computed:,} computed, {stage.reused:,} reused" for stage in info.stages],
        mode="text",
        cliponaxis=False,
        textposition="middle right",
        hoverinfo="skip",
        showlegend=False,
    )
