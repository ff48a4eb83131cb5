"""Clean accuracy and attack success of every trial, with the front, the poisoned model and the choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import plotly.graph_objects as go

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.formatting import percent, points
from analysis.points.configurations import Configuration, Estimate, Outcome, Split
from analysis.points.doubt import Band

SPLIT_NAMES: dict[Split, str] = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Mark:
    """One model in the plane: its name and changes (HTML) and its rates on one split."""

    title: str
    asr: Estimate
    ca: Estimate
    alike: bool = False
    """On the front, and not distinguishable from the choice."""
    trial: str = ""
    """The trial that stands for it, if one does."""


@dataclass(frozen=True)
class SplitInfo:
    """What the figure shows of one split. The front and the choice are those of validation on both."""

    split: Split
    others: tuple[Mark, ...]
    front: tuple[Mark, ...]
    poisoned: tuple[Mark, ...]
    base: tuple[Mark, ...]
    chosen: tuple[Mark, ...]
    floor: float | None = None
    """Least CA of a choice; on validation only, and only if there is a single victim."""
    epochs: tuple[Mark, ...] = ()
    """Earlier epochs that were candidates and are not on the front; on validation only."""
    band: Band | None = None
    """Where the front lies, 95 times in 100; on validation only."""
    seeds: tuple[Mark, ...] = ()
    """Each seed of the front, the choice and the base, where there are several."""

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Return all models that are shown."""
        return (*self.others, *self.front, *self.poisoned, *self.base, *self.chosen, *self.epochs)


@dataclass(frozen=True)
class FrontInfo:
    """Both splits, and how much CA a choice may lose."""

    splits: tuple[SplitInfo, ...]
    ca_floor: float


def front_info(findings: Findings) -> FrontInfo | Absent:
    """Work out the figure; absent without a trial that was measured under a known attack."""
    if not findings.measured:
        return base.nothing_measured(findings)
    if not findings.attacked:
        return base.no_attack_known()
    victims = findings.victims
    single = victims[0].poisoned_val if len(victims) == 1 else None
    floor = single.ca.mean - findings.run.ca_floor if single else None
    validation = _split("val", findings, lambda c: c.val, lambda c: c.poisoned_val)
    test = _split("test", findings, lambda c: c.test, lambda c: c.poisoned_test)
    near = findings.doubt.chances.keys() - {member.name for member in findings.front}  # of many the best
    earlier = tuple(
        mark
        for one in findings.candidates
        if one.at and one.name in near and (mark := _mark(base.hover_title(one, findings), one.val, of=one))
    )
    validation = replace(validation, floor=floor, epochs=earlier, band=findings.doubt.band)
    return FrontInfo((validation, test), findings.run.ca_floor)


def _split(
    split: Split,
    findings: Findings,
    defended: Callable[[Configuration], Outcome | None],
    poisoned: Callable[[Configuration], Outcome | None],
) -> SplitInfo:
    def marks(configurations: Iterable[Configuration | None]) -> tuple[Mark, ...]:
        return tuple(
            mark for c in configurations if c and (mark := _mark(base.hover_title(c, findings), defended(c), of=c))
        )

    members = {member.name for member in findings.front}
    return SplitInfo(
        split=split,
        others=marks(c for c in findings.measured if c.name not in members),
        front=tuple(
            mark
            for member in findings.front
            if (
                mark := _mark(
                    _member_title(member, findings), defended(member), member.name in findings.doubt.alike, member
                )
            )
        ),
        poisoned=tuple(mark for c in findings.victims if (mark := _mark("<b>poisoned model</b>", poisoned(c)))),
        base=marks([findings.base]),
        chosen=marks([findings.chosen]),
        seeds=_seeds(split, findings),
    )


def _seeds(split: Split, findings: Findings) -> tuple[Mark, ...]:
    shown = {id(one): one for one in (*findings.front, findings.chosen, findings.base) if one}
    found = []
    for one in shown.values():
        rates = one.rates(split)
        for seed, of in rates.items() if len(rates) > 1 else ():
            title = f"<b>{base.plain(one.title)}</b>, seed {seed}"
            if of.attacked:
                found.append(Mark(title, Estimate(*of.attacked), Estimate(of.ca, of.ca_low, of.ca_high)))
    return tuple(found)


def _member_title(member: Configuration, findings: Findings) -> str:
    chance = findings.doubt.chances.get(member.name)
    likely = "" if chance is None else f"<br>on the front with a chance of {100 * chance:.0f}%"
    alike = "<br>not distinguishable from the choice (95%)" if member.name in findings.doubt.alike else ""
    return f"{base.hover_title(member, findings)}{likely}{alike}"


def _mark(title: str, outcome: Outcome | None, alike: bool = False, of: Configuration | None = None) -> Mark | None:
    """Return a model's place in the plane; None if it was not measured there, or under no known attack."""
    trial = of.first.trial if of else ""
    return Mark(title, outcome.asr, outcome.ca, alike, trial) if outcome and outcome.asr else None


def steps(front: Iterable[Mark]) -> list[tuple[float, float]]:
    """Return the corners (ASR, CA) of the line that bounds what the front dominates, by rising ASR."""
    corners = [(mark.asr.mean, mark.ca.mean) for mark in front]
    line = corners[:1]
    for (_, ca), (next_asr, next_ca) in pairwise(corners):
        line += [(next_asr, ca), (next_asr, next_ca)]
    return line


def draw_front(info: FrontInfo) -> go.Figure:
    """Draw the figure; the traces of the test split start hidden."""
    figure = go.Figure(layout=base.blank(height=520))
    for split in info.splits:
        figure.add_traces(_traces(split, f"floor of the choice: poisoned CA − {points(info.ca_floor)}"))
    marks = [mark for split in info.splits for mark in split.marks]
    across, up = (
        base.rate_range(rate.mean for rate in rates) for rates in ([m.asr for m in marks], [m.ca for m in marks])
    )
    figure.update_xaxes(title=f"{base.ASR_AXIS} (lower is better)", tickformat=base.PERCENT, range=across)
    figure.update_yaxes(title=f"{base.CA_AXIS} (higher is better)", tickformat=base.PERCENT, range=up)
    return figure


def _traces(info: SplitInfo, floor_name: str) -> list[go.Scatter]:
    bound = steps(info.front) if info.split == "val" else []
    alike = tuple(mark for mark in info.front if mark.alike)
    drawn = [
        _band(info.band),
        _dots(info, "earlier epochs", info.epochs, {"color": base.OTHER, "size": 4, "opacity": 0.4}),
        _dots(info, "trials", info.others, {"color": base.OTHER, "size": 7, "opacity": 0.65}),
        _dots(info, "seeds", info.seeds, {"color": base.FRONT, "size": 4, "opacity": 0.55}),
        _line(bound, {"color": base.FRONT, "width": 1.5}),
        _intervals(info),
        _dots(info, "front", info.front, {"color": base.FRONT, "size": 9}),
        _dots(
            info,
            "not distinguishable from the choice",
            alike,
            {"color": base.FRONT, "size": 15, "symbol": "circle-open"},
        ),
        _dots(info, "poisoned model", info.poisoned, {"color": base.POISONED, "size": 11, "symbol": "x"}),
        _dots(info, "base", info.base, {"color": base.BASE, "size": 11, "symbol": "diamond"}),
        _dots(info, "chosen", info.chosen, {"color": base.CHOSEN, "size": 16, "symbol": "star"}),
        _line(_floor(info), {"color": base.POISONED, "width": 1, "dash": "dot"}, floor_name),
    ]
    for trace in drawn:
        trace.update(meta={"split": info.split}, visible=info.split == "val" or "legendonly")
    return [trace for trace in drawn if trace.x]


MOST_INTERVALS = 12
"""Of more members of the front their crosses would hide the rest; the table has them."""


def _intervals(info: SplitInfo) -> go.Scatter:
    """Draw the 95% intervals of the front and the choice as crosses."""
    marks = tuple(dict.fromkeys((*info.front, *info.chosen)))
    marks = marks if len(marks) <= MOST_INTERVALS else info.chosen

    def bars(rates: list[Estimate]) -> dict[str, object]:
        above, below = [r.high - r.mean for r in rates], [r.mean - r.low for r in rates]
        look = {"color": base.FRONT, "thickness": 0.8, "width": 0}
        return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}

    return go.Scatter(
        x=[mark.asr.mean for mark in marks],
        y=[mark.ca.mean for mark in marks],
        error_x=bars([mark.asr for mark in marks]),
        error_y=bars([mark.ca for mark in marks]),
        mode="markers",
        marker={"size": 1, "color": base.FRONT},
        opacity=0.5,
        name="95% intervals" + ("" if info.split == "val" else f", {SPLIT_NAMES[info.split]}"),
        hoverinfo="skip",
        showlegend=False,
    )


def _band(band: Band | None) -> go.Scatter:
    """Draw where the front lies 95 times in 100."""
    if band is None:
        return go.Scatter(x=[], y=[])
    return go.Scatter(
        x=[*band.asr, *band.asr[::-1]],
        y=[*band.high, *band.low[::-1]],
        fill="toself",
        fillcolor=base.FRONT,
        opacity=0.12,
        line={"width": 0},
        mode="lines",
        name="front, 95%",
        hoverinfo="skip",
    )


def _floor(info: SplitInfo) -> list[tuple[float, float]]:
    if info.floor is None:
        return []
    shown = [mark.asr.mean for mark in (*info.others, *info.epochs, *info.front, *info.poisoned)]
    return [(min(shown), info.floor), (max(shown), info.floor)]


def _line(corners: list[tuple[float, float]], line: dict[str, object], name: str = "") -> go.Scatter:
    return go.Scatter(
        x=[asr for asr, _ in corners],
        y=[ca for _, ca in corners],
        mode="lines",
        line=line,
        name=name,
        showlegend=bool(name),
        hoverinfo="skip",
    )


def _dots(info: SplitInfo, name: str, marks: tuple[Mark, ...], marker: dict[str, object]) -> go.Scatter:
    outline = {"line": {"width": 1, "color": "rgba(255, 255, 255, 0.7)"}}
    suffix = "" if info.split == "val" else f", {SPLIT_NAMES[info.split]}"
    return go.Scatter(
        x=[mark.asr.mean for mark in marks],
        y=[mark.ca.mean for mark in marks],
        name=name + suffix,
        mode="markers",
        marker=marker | outline,
        text=[_hover(mark, info.split) for mark in marks],
        customdata=[mark.trial for mark in marks],
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(mark: Mark, split: Split) -> str:
    asr, ca = (f"{percent(rate.mean)} ({rate.interval})" for rate in (mark.asr, mark.ca))
    return f"{mark.title}<br>ASR {asr}, CA {ca} on {SPLIT_NAMES[split]}"
