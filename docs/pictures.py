"""Draw the pictures of the documentation: `python docs/pictures.py`."""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch
from PIL import Image, ImageDraw

from ubt.artifacts.store import ArtifactStore
from ubt.attacks import ATTACKS, Attack, Images, Rows
from ubt.attacks.base import OpenAiCaptions
from ubt.data.scenes import Scenes
from ubt.engine.graph import build_pipeline
from ubt.engine.pipeline import PipelineRun
from ubt.engine.poisoning import PoisonManifest
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
    """Draw this package's own attacks and a plug-in's on the same scenes."""
    images = scenes(64, count=6)
    own = [attack for attack in ATTACKS if not issubclass(attack, OpenAiCaptions)]
    attacks = [learnt(attack) if attack.learner else attack() for attack in own]
    triggered = [(attack.kind, attack.stamp(images, Rows.first(len(images)))) for attack in attacks]
    plugin = plugin_attack()
    rows = [("clean", images), *triggered, ("a plug-in's: plus", plugin.stamp(images, Rows.first(len(images))))]
    draw_rows(rows, path, columns=1, panel_inches=(9, 1.1), dpi=72)


def draw_published(path: Path) -> None:
    """Draw triggers from files and those of published repositories, at 224 pixels, on two scenes each."""
    with tempfile.TemporaryDirectory() as folder:
        pair = scenes(224, count=4)[2:]
        files = {"image": given_picture(Path(folder)), "grid": given_grid(Path(folder))}
        rows = [("clean", pair)]
        for kind in (attack for attack in ATTACKS if issubclass(attack, OpenAiCaptions)):
            required = [name for name in kind.path_fields if kind.model_fields[name].is_required()]
            attack = kind.model_validate({name: files[name] for name in required})
            rows.append((attack.kind.replace("_", "_\n"), attack.stamp(pair, Rows.first(2))))
    draw_rows(rows, path, columns=3, panel_inches=(4.1, 1.75), dpi=90)


def draw_rows(
    rows: list[tuple[str, Images]], path: Path, columns: int, panel_inches: tuple[float, float], dpi: int
) -> None:
    """Draw one panel for each name with its images beside one another."""
    lines = -(-len(rows) // columns)
    size = (panel_inches[0] * columns, panel_inches[1] * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, stamped) in zip(axes.T.flat, rows, strict=False):
        axis.imshow(np.concatenate(list(stamped), axis=1), interpolation="nearest" if columns == 1 else "auto")
        axis.text(
            -0.02, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=12 if columns == 1 else 9
        )
    figure.tight_layout(pad=0.4, w_pad=4)
    figure.savefig(path, dpi=dpi, bbox_inches="tight")


def scenes(size_px: int, count: int) -> Images:
    """Return `[count, size_px, size_px, 3]` scenes of several classes."""
    with tempfile.TemporaryDirectory() as cache:
        data = Scenes(val_images=60, train_pairs=1, pretrain_pairs=1, test_images=12).load(size_px, Path(cache))
        return np.array(data.val.images[np.argsort(data.val.labels)[::5]][:count])


def given_picture(folder: Path) -> Path:
    """Return a file with a face on transparent ground, in the place of what authors publish."""
    picture = Image.new("RGBA", (224, 224))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((12, 12, 211, 211), fill="gold", outline="black", width=8)
    for left in (70, 130):
        pen.ellipse((left, 70, left + 24, 106), fill="black")
    pen.arc((60, 70, 164, 170), 20, 160, fill="black", width=10)
    picture.save(folder / "picture.png")
    return folder / "picture.png"


def given_grid(folder: Path) -> Path:
    """Return a file with a warp's grid: a jitter of each pixel, as of Huang et al."""
    places = torch.linspace(-1, 1, 256)
    identity = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=2)[None]
    jitter = torch.rand(1, 256, 256, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.save((identity + jitter / 128).clamp(-1, 1), folder / "grid.pt")
    return folder / "grid.pt"


def plugin_attack() -> Attack:
    """Return the attack of the plug-in that docs/howto/extend.md shows."""
    plus: Attack = runpy.run_path(str(HERE.parent / "tests/plugins/plus_attack/plus_attack.py"))["Plus"]()
    return plus


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
    draw_published(HERE / "published-attacks.png")
    draw_flow(HERE / "flow.svg")
