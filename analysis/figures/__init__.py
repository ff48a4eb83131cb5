"""Figures of a run, each worked out (`*_info`) apart from being drawn (`draw_*`); `FIGURES` has them by name.

A new figure is one file, and one `FigureKind` in `FIGURES.add`; one of another distribution an entry point in the group
`ubt.figures` that names a `FigureKind`.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from analysis.figures.base import Absent, FigureKind, attempt
from analysis.figures.chain import chain_info, draw_chain
from analysis.figures.components import components_info, draw_components
from analysis.figures.epochs import draw_epochs, epochs_info
from analysis.figures.front import draw_front, front_info
from analysis.figures.knobs import draw_knobs, knobs_info
from analysis.figures.pairs import draw_pairs, pairs_info
from analysis.figures.search import draw_growth, draw_parallel, growth_info, parallel_info
from analysis.figures.stages import draw_stages, stages_info
from analysis.figures.workers import draw_workers, workers_info
from analysis.findings import Findings
from ubt.common.errors import UserError
from ubt.common.registry import Registry

FIGURES: Registry[FigureKind[Any]] = Registry("figure", "ubt.figures", lambda kind: kind.name, __name__, FigureKind)
FIGURES.add(
    FigureKind(
        "front",
        "Clean accuracy against attack success",
        "Each dot is a configuration, each small one an earlier epoch; up and to the left is better. The line joins "
        "the front: what no other betters in both. With seeds and images drawn anew (bootstrap), the front lies in the "
        "band 95 times in 100. A ring: neither rate differs from the choice’s by its 95% interval. Crosses: 95% "
        "intervals of the front and the choice; the smallest blue dots: their seeds, where there are several. Front "
        "and choice are made on the validation split; the test split shows the same on images that no decision has "
        "seen.",
        front_info,
        draw_front,
    ),
    FigureKind(
        "knobs",
        "What each knob does",
        "Validation rates of all configurations, by the value of each searched setting. Diamonds change that "
        "setting alone and leave the rest at the study's base.",
        knobs_info,
        draw_knobs,
    ),
    FigureKind(
        "components",
        "What each component is worth",
        "The difference that leaving it out makes, seed by seed, and its mean with the 95% interval: of the same "
        "numbers as the table. To the right the change raises the rate.",
        components_info,
        draw_components,
    ),
    FigureKind(
        "pairs",
        "Knobs two at a time",
        "Both rates on validation over the knobs that explain most of them. A heat map has the median of the "
        "configurations in each field; contours run through the mean of those near, and are left out where there are "
        "none. The rest of the knobs is as it comes.",
        pairs_info,
        draw_pairs,
    ),
    FigureKind(
        "parallel",
        "Every configuration as a line",
        "Over the searched settings, by rank among the values that were tried, to ASR and CA on validation. Blue lines "
        "have a low ASR. Of many configurations the front, the choice and some of the others are shown.",
        parallel_info,
        draw_parallel,
    ),
    FigureKind(
        "growth",
        "Hypervolume over trials and device time",
        "The area that the front dominates on validation, after each trial that ended. Device time is counted from an "
        "empty store: with stages shared among the run's trials, and as if nothing was.",
        growth_info,
        draw_growth,
    ),
    FigureKind(
        "chain",
        "The chain, and what came of it",
        "What each stage knew of the poison, against the attack success on validation that remained: means over seeds.",
        chain_info,
        draw_chain,
    ),
    FigureKind(
        "epochs",
        "Epoch by epoch",
        "The model after each epoch of the defense, on validation, with its 95% Wilson interval. "
        "Of a configuration with several seeds, the first is shown.",
        epochs_info,
        draw_epochs,
    ),
    FigureKind(
        "stages",
        "Where the time went",
        "Stages with equal settings, seed and inputs are computed once and shared. Hatched: what the "
        "shared ones would have taken.",
        stages_info,
        draw_stages,
    ),
    FigureKind(
        "workers",
        "Workers",
        "What each node computed when; a node has as many lanes as it ran trials at once. Grey is what no stage takes "
        "of a trial: finding stages in the store, and publishing. Hatched: no trial while others ran, as none could "
        "begin before what they computed, or the worker was still starting. A stage that is pointed at says how many "
        "trials reused it.",
        workers_info,
        draw_workers,
    ),
)


def drawn(name: str, findings: Findings) -> tuple[FigureKind[Any], go.Figure | Absent]:
    """Return a figure with its kind for the report: one that cannot be imported or drawn is absent, and no error."""
    try:
        kind = FIGURES.get(name)
    except UserError as error:
        return _missing(name), Absent(f"{error.problems[0]}.")
    return kind, attempt(name, lambda: kind.figure(findings))


def _missing(name: str) -> FigureKind[Any]:
    return FigureKind(name, name, "", lambda _: Absent(""), lambda _: go.Figure())


__all__ = ["FIGURES", "Absent", "FigureKind"]
