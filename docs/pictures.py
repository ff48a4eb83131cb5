"""Draw the pictures of the documentation: `python docs/pictures.py`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

from ubt.artifacts.store import ArtifactStore
from ubt.attacks import ATTACKS, Attack, Rows
from ubt.data.scenes import Scenes
from ubt.engine.graph import build_pipeline
from ubt.engine.poisoning import PoisonManifest
from ubt.engine.runner import PipelineRun
from ubt.engine.workspace import Workspace
from ubt.trials.config import TrialConfig

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "ubt"  # the same picture gives the same file

HERE = Path(__file__).parent
VICTIM, DEFENSE, JUDGE = "#D9E8F5", "#DDF0E3", "#F6EBD6"
FLOW = (
    ("pretrain\nor load", "clean CLIP", VICTIM),
    ("poison", "trigger + target", VICTIM),
    ("implant", "backdoored CLIP", VICTIM),
    ("detect\nsuspect", "least trusted pairs", DEFENSE),
    ("overfit\nselect", "backdoor shows first", DEFENSE),
    ("attribute", "relevant tokens", DEFENSE),
    ("unlearn", "push apart, hold rest", DEFENSE),
    ("evaluate", "ASR, CA", JUDGE),
)


def draw_attacks(path: Path) -> None:
    """Draw each attack of the table on the same scenes."""
    with tempfile.TemporaryDirectory() as cache:
        data = Scenes(val_images=60, train_pairs=1, pretrain_pairs=1, test_images=12).load(64, Path(cache))
        images = np.array(data.val.images[np.argsort(data.val.labels)[::5]][:6])
    attacks = [learnt(attack) if attack.learner else attack() for attack in ATTACKS]
    rows = [("clean", images)] + [(attack.kind, attack.stamp(images, Rows.first(len(images)))) for attack in attacks]
    figure, axes = plt.subplots(len(rows), 1, figsize=(9, 1.1 * len(rows)))
    for axis, (name, stamped) in zip(axes, rows, strict=True):
        axis.imshow(np.concatenate(list(stamped), axis=1), interpolation="nearest")
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=72, bbox_inches="tight")


def learnt(kind: type[Attack]) -> Attack:
    """Return an attack with a trigger that it learnt against a small clean model, trained here in half a minute."""
    data = {"kind": "scenes", "pretrain_pairs": 2000, "train_pairs": 1000, "val_images": 12, "test_images": 12}
    trial = TrialConfig.model_validate(
        {"victim": {"data": data, "pretrain": {"epochs": 5}, "attack": {"kind": kind().kind}}}
    )
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(
            trial.victim.data, trial.victim.model, torch.device("cpu"), ArtifactStore(folder), Path(folder) / "images"
        )
        pipeline = build_pipeline(trial, seed=0)[:2]
        list(PipelineRun(pipeline, trial, workspace, {}).steps())
        return PoisonManifest.of(workspace.load("poison", pipeline[-1].key)).attack


def draw_flow(path: Path) -> None:
    """Draw the stages of a UBT trial, and what trials share."""
    figure, axis = plt.subplots(figsize=(12, 2.3))
    for place, (stage, result, colour) in enumerate(FLOW):
        box = FancyBboxPatch(
            (place, 0.42), 0.78, 0.5, boxstyle="round,pad=0.02,rounding_size=0.08", fc=colour, ec="#555"
        )
        axis.add_patch(box)
        axis.text(place + 0.39, 0.67, stage, ha="center", va="center", fontsize=12, weight="bold")
        axis.text(place + 0.39, 0.3, result, ha="center", va="top", fontsize=9.5, color="#333")
        if place:
            axis.annotate(
                "", (place - 0.01, 0.67), (place - 0.19, 0.67), arrowprops={"arrowstyle": "->", "color": "#555"}
            )
    for left, right, text in (
        (0, 2.8, "computed once for a victim"),
        (3, 6.8, "shared as far as settings agree"),
        (7, 7.8, "per trial"),
    ):
        axis.plot([left, right], [0.03, 0.03], color="#888", lw=2)
        axis.text((left + right) / 2, -0.05, text, ha="center", va="top", fontsize=10, color="#444")
    axis.set(xlim=(-0.1, 7.95), ylim=(-0.22, 1.0))
    axis.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw_attacks(HERE / "attacks.png")
    draw_flow(HERE / "flow.svg")
