"""Attack success rate and clean accuracy after every epoch, of the chosen trial and of the base."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.formatting import percent
from analysis.points.configurations import Configuration, Estimate
from ubt.trials.rates import Rates


@dataclass(frozen=True)
class EpochPoint:
    """The model after one epoch, on the validation split."""

    epoch: int
    stage: str
    asr: Estimate | None
    """None if no attack is known."""
    ca: Estimate


@dataclass(frozen=True)
class Course:
    """One trial from the poisoned model (epoch 0) to its last epoch."""

    role: str
    trial: str
    title: str
    colour: str
    points: tuple[EpochPoint, ...]


@dataclass(frozen=True)
class EpochsInfo:
    """The courses; the chosen trial's last, so that it is drawn on top."""

    courses: tuple[Course, ...]


def epochs_info(findings: Findings) -> EpochsInfo | Absent:
    """Work out the figure; absent if neither trial has measured epochs."""
    if not findings.measured:
        return base.nothing_measured(findings)
    roles = [("base", findings.base, base.BASE), ("chosen", findings.chosen, base.CHOSEN)]
    if findings.base and findings.chosen and findings.base.first is findings.chosen.first:
        roles = roles[1:]
    courses = tuple(_course(findings, role, c, colour) for role, c, colour in roles if c and c.first.epochs)
    if not courses:
        return Absent("Neither the chosen trial nor the base measured its model after each epoch.")
    return EpochsInfo(courses)


def _course(findings: Findings, role: str, configuration: Configuration, colour: str) -> Course:
    record = configuration.first
    start = [_point(0, "poisoned model", record.poisoned_val)] if record.poisoned_val else []
    after, before = [], 0
    for stage in record.stages:  # counted on: a defense of two stages that change the model has one course
        judged = [epoch for epoch in stage.epochs if epoch.val]
        for epoch in judged:
            of = f" ({epoch.val.ca_images:,} images)" if epoch.val and epoch.val.provisional else ""
            if epoch.val:
                after.append(_point(before + max(1, epoch.epoch), f"{stage.stage}, epoch {epoch.epoch}{of}", epoch.val))
        before += max(1, judged[-1].epoch) if judged else 0
    title = base.hover_title(configuration, findings)
    return Course(role, record.trial, title, colour, (*start, *after))


def _point(epoch: int, stage: str, rates: Rates) -> EpochPoint:
    asr = Estimate(*rates.attacked) if rates.attacked else None
    return EpochPoint(epoch, stage, asr, Estimate(rates.ca, rates.ca_low, rates.ca_high))


def draw_epochs(info: EpochsInfo) -> go.Figure:
    """Draw the figure: ASR, if an attack is known, and CA side by side, with the 95 % interval as a band."""
    attacked = any(point.asr for course in info.courses for point in course.points)
    figure = make_subplots(rows=1, cols=1 + attacked, horizontal_spacing=0.09)
    figure.update_layout(base.blank(height=360))
    for course in info.courses:
        if attacked:
            rates = tuple((point, point.asr) for point in course.points if point.asr)
            figure.add_traces(_traces(course, rates, legend=True), rows=1, cols=1)
        rates = tuple((point, point.ca) for point in course.points)
        figure.add_traces(_traces(course, rates, legend=not attacked), rows=1, cols=1 + attacked)
    last = max(point.epoch for course in info.courses for point in course.points)
    ticks = {"tick0": 0, "dtick": 1} if last <= 12 else {}
    figure.update_xaxes(title="epoch (0: the poisoned model)", **ticks)
    figure.update_yaxes(tickformat=base.PERCENT)
    shown = [point for course in info.courses for point in course.points]
    if attacked:
        high = [point.asr.high for point in shown if point.asr]
        figure.update_yaxes(title=base.ASR_AXIS, range=base.rate_range([0.0, *high]), col=1)
    ends = [end for point in shown for end in (point.ca.low, point.ca.high)]
    figure.update_yaxes(title=base.CA_AXIS, range=base.rate_range(ends), col=1 + attacked)
    return figure


def _traces(course: Course, measured: tuple[tuple[EpochPoint, Estimate], ...], legend: bool) -> list[go.Scatter]:
    epochs, rates = [point.epoch for point, _ in measured], [rate for _, rate in measured]
    band = go.Scatter(
        x=epochs + epochs[::-1],
        y=[rate.high for rate in rates] + [rate.low for rate in rates][::-1],
        fill="toself",
        fillcolor=course.colour,
        opacity=0.14,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        legendgroup=course.role,
        showlegend=False,
    )
    line = go.Scatter(
        x=epochs,
        y=[rate.mean for rate in rates],
        mode="lines+markers",
        line={"color": course.colour, "width": 2},
        marker={"size": 5},
        cliponaxis=False,
        name=course.role,
        legendgroup=course.role,
        showlegend=legend,
        text=[_hover(course, *pair) for pair in measured],
        hovertemplate="%{text}<extra></extra>",
    )
    return [band, line]


def _hover(course: Course, point: EpochPoint, rate: Estimate) -> str:
    return f"{course.title}<br>after {base.plain(point.stage)}: {percent(rate.mean)} ({rate.interval})"
