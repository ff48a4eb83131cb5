"""The chain of stages against what came of it: recall, AUROC, purity and relevance, by ASR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.formatting import percent
from analysis.points.configurations import Configuration

LINKS: Mapping[str, tuple[str, str]] = {
    "recall of suspects": ("suspect", "recall"),
    "AUROC, overfitted": ("overfit", "auroc"),
    "purity of the selection": ("select", "purity"),
    "relevance on the target’s name": ("attribute", "target_share"),
}
"""What a panel is called → the stage, and its diagnostic."""
MOST_DOTS = 1000


@dataclass(frozen=True)
class ChainPanel:
    """One diagnostic: (its value, ASR, what is said of the configuration, its trial) of each that has it."""

    title: str
    points: tuple[tuple[float, float, str, str], ...]


def chain_info(findings: Findings) -> tuple[ChainPanel, ...] | Absent:
    """Work out the panels; absent unless a stage of the chain was measured under a known attack."""
    if not findings.measured:
        return base.nothing_measured(findings)
    if not findings.attacked:
        return base.no_attack_known()
    found = [one for one in findings.searched if one.point]
    found = found[:: -(-len(found) // MOST_DOTS)]
    panels = [ChainPanel(title, tuple(_points(found, findings, *link))) for title, link in LINKS.items()]
    known = tuple(panel for panel in panels if len({value for value, *_ in panel.points}) > 1)
    return known or Absent("No diagnostic of the chain of stages was measured at several values.")


def _points(
    found: list[Configuration], findings: Findings, stage: str, name: str
) -> list[tuple[float, float, str, str]]:
    points = []
    for one in found:
        values = [
            done.diagnostics[name]
            for trial in one.measured
            for done in trial.stages
            if done.stage == stage and name in done.diagnostics
        ]
        if values and one.point:
            points.append((fmean(values), one.point[0], base.hover_title(one, findings), one.first.trial))
    return points


def draw_chain(panels: tuple[ChainPanel, ...]) -> go.Figure:
    """Draw a panel a diagnostic."""
    figure = make_subplots(rows=1, cols=len(panels), shared_yaxes=True, horizontal_spacing=0.03)
    figure.update_layout(base.blank(height=320))
    for column, panel in enumerate(panels, start=1):
        figure.add_trace(
            go.Scatter(
                x=[value for value, *_ in panel.points],
                y=[asr for _, asr, *_ in panel.points],
                mode="markers",
                marker={"color": base.FRONT, "size": 6, "opacity": 0.5},
                text=[f"{title}<br>{value:.3g}, ASR {percent(asr)}" for value, asr, title, _ in panel.points],
                customdata=[trial for *_, trial in panel.points],
                hovertemplate="%{text}<extra></extra>",
                showlegend=False,
            ),
            row=1,
            col=column,
        )
        figure.update_xaxes(title=panel.title, col=column, nticks=5)
    rates = [asr for panel in panels for _, asr, *_ in panel.points]
    figure.update_yaxes(tickformat=base.PERCENT, range=base.rate_range(rates))
    figure.update_yaxes(title=base.ASR_AXIS, col=1)
    return figure
