"""What judging a model costs beside the model itself: triggers, text, and how images are fed.

    python benchmarks/judging.py --part triggers

CPU time of one process on one thread, in one run: a ratio is of two things measured one after the other. Images are
noise of the paper's size; models have random weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sweeps.study.loading import load_study
from ubt.attacks import ATTACKS, Attack, Rows
from ubt.data.base import DataSizes
from ubt.data.vocabulary import read_classes, read_templates
from ubt.engine.work import Work
from ubt.methods.stamping import Stamper
from ubt.models.build import build_clip
from ubt.models.clip import Clip, embed_tokens
from ubt.models.settings import ModelSettings
from ubt.stages.work import each_epoch, evaluate, unlearn
from ubt.trials.judging import Judging

SIZE_PX, JUDGED = 224, 50_000
"""The paper's images: so many are judged."""


def cpu_seconds(work: Callable[[], object], least_seconds: float = 1.0) -> float:
    """Return the CPU time of one call, the mean over as many as take a while; the first is not counted."""
    work()
    calls, began = 0, time.process_time()
    while (spent := time.process_time() - began) < least_seconds:
        work()
        calls += 1
    return spent / calls


def model(name: str) -> Clip:
    """Return a model with random weights."""
    return build_clip(ModelSettings(name=name, random_weights=True), seed=0, device=torch.device("cpu"))


def pictures(count: int) -> np.ndarray:
    """Return noise, `[N, 224, 224, 3]`."""
    return np.random.default_rng(0).integers(0, 256, size=(count, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


def triggers(count: int = 256) -> list[dict[str, object]]:
    """Measure stamping by the batch, and what stamping a split at once held in memory."""
    clip, images, rows = model("ViT-B-32"), pictures(count), Rows.first(count)
    few = torch.from_numpy(images[:32])
    with torch.no_grad():
        embedding = cpu_seconds(lambda: clip.encode_images(few)) / len(few)
    found = []
    for kind in ("badnets", "blended", "sig", "wanet", "trojvqa", "label_consistent", "cleanclip_badnets"):
        attack: Attack = ATTACKS.get(kind)()
        stamper, batch = Stamper(attack, torch.device("cpu")), torch.from_numpy(images)
        begun = time.process_time()
        attack.stamp(images, rows)  # its first time, as where a split was stamped once
        at_once = (time.process_time() - begun) / count
        by_batch = cpu_seconds(lambda stamper=stamper, batch=batch: stamper(batch, rows)) / count
        found.append(
            {
                "attack": kind,
                "at once, s for 50,000": round(at_once * JUDGED, 1),
                "held, GB": round(JUDGED * SIZE_PX**2 * 3 / 1e9, 1),
                "by the batch, ms an image": round(1000 * by_batch, 3),
                "share of embedding it (ViT-B/32, this core)": round(by_batch / embedding, 4),
                "held now, MB (two batches)": round(2 * 256 * SIZE_PX**2 * 3 / 1e6, 1),
            }
        )
    return found


def passes() -> list[dict[str, object]]:
    """Count the images that a trial of the paper's size puts through models to judge them, and all that it embeds."""
    sizes = DataSizes(train=500_000, captions=490_000, val=25_000, test=25_000, classes=1000, templates=80)
    base = load_study("paper").trial({})
    found = []
    for judging in (Judging(), Judging(images=2000), base.judging, Judging(epochs="last")):
        trial = base.model_copy(update={"judging": judging})
        between = each_epoch(trial, sizes, base.defense.unlearn_epochs, text_changes=False).counts["images"]
        end = evaluate(trial, sizes).counts["images"]
        work = sum((work_of_stage(trial, sizes) for work_of_stage in (unlearn, evaluate)), Work()).counts
        others = work["images"] + work["trained_images"] - between - end
        found.append(
            {
                "judging": judging.as_json(),
                "images judged": round(between + end),
                "of it at the end": round(end),
                "other images of unlearning": round(others),
            }
        )
    return found


def text() -> list[dict[str, object]]:
    """Measure prompts through the text tower at all positions, and as far as they go."""
    clip, templates = model("ViT-B-32"), read_templates("openai", [])
    classes = read_classes("imagenet", [])
    prompts = [template.format(name) for name in classes[:: len(classes) // 64] for template in templates][:1024]
    began = time.process_time()
    tokens = clip.tokenize(prompts)
    tokenizing = (time.process_time() - began) / len(prompts)
    cut = replace(clip, cut_text=True)
    whole_s, cut_s = (cpu_seconds(lambda one=one: embed_tokens(one, tokens[:64])) / 64 for one in (clip, cut))
    difference = (embed_tokens(clip, tokens[:64]) - embed_tokens(cut, tokens[:64])).abs().max()
    return [
        {
            "positions": int(tokens.shape[1]),
            "longest prompt": int(tokens.argmax(dim=1).max()) + 1,
            "all positions, ms a prompt": round(1000 * whole_s, 2),
            "as far as they go, ms a prompt": round(1000 * cut_s, 2),
            "times faster": round(whole_s / cut_s, 2),
            "largest difference of unit embeddings": float(difference),
            "tokenising, ms a prompt (was at each epoch whose text tower had changed)": round(1000 * tokenizing, 3),
        }
    ]


PARTS: dict[str, Callable[[], list[dict[str, object]]]] = {"triggers": triggers, "passes": passes, "text": text}


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    measured = {}
    for name in PARTS if given.part == "all" else [given.part]:
        measured[name] = PARTS[name]()
        print(name, *(json.dumps(row) for row in measured[name]), sep="\n", flush=True)
    print("peak RSS, MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    if given.out:
        given.out.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
