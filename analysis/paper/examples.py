"""Poisoned pairs as the attacker found them and as they are trained on: images and captions, some of each attack.

Drawn from what is at hand: which pairs are poisoned is in the store, their images are in the cache of decoded ones.
Where those are not on this machine, or their lists too long to be read for a picture, the figure is absent.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.paper import style
from analysis.paper.artifacts import ANEW, Artifacts, StageArtifact, Unreadable, by_victim, has_stage, matching
from ubt.artifacts.store import default_store, local_cache
from ubt.attacks import Attack, AttackConfig
from ubt.attacks.base import Rows
from ubt.common.atomic_files import NotMadeYet, only_what_is_there
from ubt.common.errors import UserError
from ubt.data import DataConfig, DataSource
from ubt.data.base import DataSet
from ubt.models.settings import ModelSettings, image_size_px
from ubt.trials.record import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS, PAIRS = 4, 5
"""Attacks, and pairs of each."""
MOST_ROWS = 500_000
"""Pairs of a training set, with those of pretraining: longer lists would be read for minutes."""
LETTERS, LINES = 26, 3
"""A caption is broken behind so many letters, and cut behind so many lines."""
PANEL_INCHES, TITLE_INCHES = 2.35, 0.3

Images = NDArray[np.uint8]
_attack: TypeAdapter[Attack] = TypeAdapter(AttackConfig)
_data: TypeAdapter[DataSource] = TypeAdapter(DataConfig)


@dataclass(frozen=True)
class ExamplePanel:
    """Some poisoned pairs of one attack: `[P, H, W, 3]` images and P captions, before and after."""

    attack: str
    before: Images
    after: Images
    captions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ExamplesInfo:
    """The panels, and what is missing from them, one sentence each."""

    panels: tuple[ExamplePanel, ...]
    notes: tuple[str, ...]


def examples_info(findings: Findings, artifacts: Artifacts) -> ExamplesInfo | Absent:
    """Work out the figure; absent unless pairs were poisoned by a known attack, and their images are at hand."""
    panels, notes = list[ExamplePanel](), list[str]()
    loaded: dict[str, DataSet] = {}
    found = by_victim(findings, matching(findings, has_stage("poison")))
    for attack, (record,) in list(found.items())[:MOST_PANELS]:
        try:
            panels += [_panel(attack, record, findings, artifacts, loaded)] if record else []
        except Unreadable as why:
            notes.append(f"{why}.")
    if not panels:
        return Absent(" ".join(dict.fromkeys(notes)) or "It needs a finished trial.")
    if len(found) > MOST_PANELS:
        notes.append(f"Shown are the first {MOST_PANELS} of {len(found)} attacks.")
    return ExamplesInfo(tuple(panels), tuple(notes))


def _panel(
    name: str, record: TrialRecord, findings: Findings, artifacts: Artifacts, loaded: dict[str, DataSet]
) -> ExamplePanel:
    poison = artifacts.read(record, "poison")
    if poison.fact("attack") is None or poison.manifest.facts.get("given"):
        raise Unreadable(f"The pairs of {record.trial} came poisoned: what they were before is not known")
    data = _data_of(record, findings, loaded)
    rows = poison.tensor("indices")[:PAIRS]
    before = np.stack(list(data.train.take(rows)))
    after = _attack_of(poison).stamp(before.copy(), Rows("train", rows))
    captions: Any = poison.fact("captions")
    return ExamplePanel(
        name, before, after, tuple((data.train.captions[row], str(captions[at])) for at, row in enumerate(rows))
    )


def _attack_of(poison: StageArtifact) -> Attack:
    try:
        attack = _attack.validate_python(poison.fact("attack"))
    except ValidationError as error:
        raise Unreadable(f"{poison.title} holds an attack that this version does not know; {ANEW}") from error
    learned = poison.tensors.get("learned")
    return attack if learned is None else attack.carrying(learned)


def _data_of(record: TrialRecord, findings: Findings, loaded: dict[str, DataSet]) -> DataSet:
    """Return a trial's data as its workers have decoded it; nothing is decoded for a picture."""
    victim = record.config.get("victim")
    settings = victim if isinstance(victim, dict) else {}
    key = repr(settings.get("data")) + repr(settings.get("model"))
    if key not in loaded:
        planned = findings.run.planned.data if findings.run.planned else ()
        rows = max((data.counts.get("train", 0) + data.counts.get("pretrain", 0) for data in planned), default=0)
        if rows > MOST_ROWS:
            raise Unreadable(f"The data has {rows:,} pairs, whose lists would be read for a few pictures")
        try:
            source, model = _data.validate_python(settings.get("data")), ModelSettings.model_validate(settings["model"])
            with only_what_is_there():
                loaded[key] = source.load(image_size_px(model.name), local_cache(findings.run.store or default_store()))
        except (NotMadeYet, UserError, ValidationError, OSError, KeyError) as error:
            raise Unreadable("The decoded images of its data are not on this machine") from error
    return loaded[key]


def draw_examples(info: ExamplesInfo) -> Figure:
    """Draw the figure: for each attack a row of pairs as they were, and below it the same as they are trained on."""
    height = len(info.panels) * (PANEL_INCHES + TITLE_INCHES)
    figure = style.blank(style.PAGE_INCHES, height)
    grids = figure.subplots(2 * len(info.panels), PAIRS, squeeze=False)
    for number, panel in enumerate(info.panels):
        for row, (images, which) in enumerate(((panel.before, 0), (panel.after, 1))):
            axes = grids[2 * number + row]
            _draw_row(axes, images, [both[which] for both in panel.captions])
            axes[0].set_ylabel("poisoned" if row else "before", fontsize=style.FONT_POINTS)
        grids[2 * number][0].set_title(panel.attack, loc="left", pad=4, weight="bold")
    return figure


def _draw_row(axes: list[Axes], images: Images, captions: list[str]) -> None:
    for at, place in enumerate(axes):
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(False)
        if at < len(images):
            place.imshow(images[at], interpolation="nearest")
            place.set_xlabel(shortened(captions[at]), fontsize=style.FONT_POINTS - 1.5, labelpad=2)


def shortened(caption: str) -> str:
    """Return a caption in a few lines of a few words."""
    lines = textwrap.wrap(caption.replace("$", r"\$"), LETTERS, max_lines=LINES, placeholder=" …")
    return "\n".join(lines)
