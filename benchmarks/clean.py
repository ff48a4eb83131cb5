"""What `ubt clean` is worth, which does not know the attack: ASR before and after, measured here with the trigger.

    python benchmarks/clean.py WORK [--seeds 0,1,2] [--attacks badnets,…]

Makes the victims of the study `table` (from the store, where it has them), writes their models, poisoned pairs and the
labelled validation images as files, cleans each by those files alone, and evaluates the cleaned file, the clean model
and weights between both on the test split. One line of JSON a victim goes to WORK/results.jsonl; what is there is not
run again. `python benchmarks/clean.py WORK --table` prints it as Markdown.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sweeps.cleaning.checkpoint import clean_checkpoint
from sweeps.cleaning.study import Request
from sweeps.study.loading import load_study
from ubt.artifacts.codec import Artifact
from ubt.artifacts.store import ArtifactStore, default_store, local_cache
from ubt.data import content_key
from ubt.data.base import PairSource
from ubt.engine.graph import build_pipeline
from ubt.engine.runner import run_trial
from ubt.engine.workspace import Workspace
from ubt.models.clip import use_threads
from ubt.stages.reference import between
from ubt.trials.config import TrialConfig

WEIGHTS = (0.25, 0.5, 0.75)


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--attacks", default="")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    results = given.work / "results.jsonl"
    if given.table:
        print(table(read(results)))
        return
    use_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    study = load_study("table")
    attacks = study.search.attacks
    done = {(one["attack"], one["seed"]) for one in read(results)}
    for seed in map(int, given.seeds.split(",")):
        for name in given.attacks.split(",") if given.attacks else attacks:
            if (name, seed) in done:
                continue
            attack = {"kind": attacks[name].kind, **attacks[name].model_dump(mode="json", exclude_defaults=True)}
            trial = study.trial({"victim.attack": attack, "defense": {"kind": "none"}})
            found = {"attack": name, "seed": seed, **one_victim(trial, seed, given.work / f"{name}-{seed}")}
            with results.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)


def read(results: Path) -> list[dict[str, Any]]:
    """Return the lines that are there."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def one_victim(trial: TrialConfig, seed: int, folder: Path) -> dict[str, Any]:
    """Make a victim, clean it by its files, and return the rates of every model on the test split."""
    store = default_store()
    record = run_trial(trial, store, seed)
    assert record.state == "DONE", record.reason
    workspace = Workspace(
        trial.victim.data, trial.victim.model, torch.device("cpu"), ArtifactStore(store), local_cache(store)
    )
    artifacts = {
        node.spec.name: workspace.load(node.spec.name, node.key)
        for node in build_pipeline(trial, seed, content_key(trial.victim.data))
    }
    shutil.rmtree(folder, ignore_errors=True)
    write_victim(workspace, artifacts, folder)
    began = time.perf_counter()
    request = Request(
        model=trial.victim.model.name,
        checkpoint=folder / "suspicious.safetensors",
        pairs=folder / "pairs.csv",
        out=folder / "cleaned",
        reference_checkpoint=folder / "clean.safetensors",
        labels=folder / "labels.csv",
        classes=str(folder / "classes.txt"),
        templates=str(folder / "templates.txt"),
    )
    cleaned = clean_checkpoint(request)
    seconds = time.perf_counter() - began
    poisoned, clean = artifacts["implant"].weights, artifacts["pretrain"].weights
    models = {"before": poisoned, "after": load_file(cleaned.model), "reference": clean}
    models |= {f"between {weight}": between(poisoned, clean, weight) for weight in WEIGHTS}
    evaluator = workspace.evaluator(artifacts["poison"])
    rates = {name: evaluator.rates(workspace.clip.with_state(weights), "test") for name, weights in models.items()}
    shutil.rmtree(folder / "images")
    return {
        **{name: {"asr": found.asr, "ca": found.ca} for name, found in rates.items()},
        "seconds": seconds,
        "settings": cleaned.cleaned.settings,
        "qualified": cleaned.cleaned.qualified,
        "alike": [cleaned.cleaned.before.alike, cleaned.cleaned.after.alike],
    }


def write_victim(workspace: Workspace, artifacts: Mapping[str, Artifact], folder: Path) -> None:
    """Write what a defender has: both models, the pairs, and labelled images that nothing was trained on."""
    folder.mkdir(parents=True)
    for name, stage in (("suspicious", "implant"), ("clean", "pretrain")):
        weights = {key: value.contiguous() for key, value in artifacts[stage].weights.items()}
        save_file(weights, folder / f"{name}.safetensors")
    pairs = workspace.pairs(artifacts["poison"])
    write_rows(folder / "pairs.csv", "caption", pairs.captions, images_of(pairs))
    val, classes = workspace.data.val, workspace.data.classes
    write_rows(folder / "labels.csv", "label", [classes[label] for label in val.labels], iter(np.asarray(val.images)))
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    (folder / "templates.txt").write_text("\n".join(workspace.data.templates) + "\n")


def images_of(pairs: PairSource) -> Iterator[np.ndarray]:
    """Yield every image."""
    for start in range(0, len(pairs), 500):
        yield from pairs.take(np.arange(start, min(start + 500, len(pairs))))


def write_rows(path: Path, column: str, texts: list[str], images: Iterator[np.ndarray]) -> None:
    """Write a table of images, and the images beside it as PNG files."""
    folder = path.parent / "images" / path.stem
    folder.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", column])
        for number, (text, image) in enumerate(zip(texts, images, strict=True)):
            Image.fromarray(image).save(folder / f"{number:05d}.png", compress_level=1)
            writer.writerow([f"images/{path.stem}/{number:05d}.png", text])


def table(found: list[dict[str, Any]]) -> str:
    """Return means over seeds as Markdown: test ASR / CA in percent, a row an attack."""
    names = ["before", "after", "reference", *(f"between {weight}" for weight in WEIGHTS)]
    lines = ["| attack | " + " | ".join(names) + " | seeds |", "|---|" + "---:|" * (len(names) + 1)]
    attacks = list(dict.fromkeys(one["attack"] for one in found))
    for attack in [*attacks, "mean"]:
        rows = [one for one in found if attack in (one["attack"], "mean")]
        cells = [
            " / ".join(f"{100 * fmean(row[name][rate] for row in rows):.1f}" for rate in ("asr", "ca"))
            for name in names
        ]
        worst = max(row["after"]["asr"] for row in rows)
        cells[1] += f" (worst {100 * worst:.1f})"
        lines.append(f"| {attack} | " + " | ".join(cells) + f" | {len(rows)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
