"""Outcomes of a dense grid of UBT's knobs, computed once, for searches to be replayed on: see `replay.py` beside it.

    python benchmarks/search/grid.py FOLDER badnets-0 badnets-1 blended-0 …     # pieces; all of them if none is named

A piece is a sweep of one attack and one seed, by this package, in this process, with all stages shared in one store.
It goes on where it ended, and several processes may work at pieces of their own. `outcomes.py`
makes the table of what is there.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from sweeps.run.launch import sweep
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.artifacts.store import ArtifactStore, local_cache
from ubt.data import content_key
from ubt.engine.graph import build_pipeline
from ubt.engine.runner import PipelineRun
from ubt.engine.workspace import Workspace
from ubt.models.clip import pick_device, use_threads
from ubt.stages import observation

ATTACKS = {
    "badnets": {"kind": "badnets", "target": "banana", "patch_fraction": 0.25, "poison_rate": 0.1},
    "blended": {"kind": "blended", "opacity": 0.5, "target": "banana", "poison_rate": 0.1},
    "sig": {"kind": "sig", "amplitude": 80.0, "target": "banana", "poison_rate": 0.1},
}
"""The last one is held out: nothing was tuned on it."""
SEEDS = range(5)
SPACE = {
    "defense.suspicious_ratio": [0.03, 0.06, 0.12],
    "defense.overfit_epochs": [1, 2, 4],
    "defense.unlearn_samples": [16, 48],
    "defense.token_threshold": [0.05, 0.2],
    "defense.unlearn_learning_rate": [1e-4, 2e-4, 5e-4, 1e-3],
    "defense.retain_weight": [4.0, 16.0],
}
PIECES = [f"{attack}-{seed}" for seed in SEEDS for attack in ATTACKS]


def clean_model(folder: Path) -> Path:
    """Return the weights of the clean model that all victims come from: the demo's, of seed 0."""
    path = folder / "clean.safetensors"
    if not path.is_file():
        use_threads(1)
        config = load_study("demo", [])
        trial = config.trial({})
        nodes = build_pipeline(trial, 0, content_key(trial.victim.data))
        until = [node.spec.name for node in nodes].index("pretrain") + 1
        store = ArtifactStore(folder / "store")
        files = store, local_cache(str(folder))
        workspace = Workspace(trial.victim.data, trial.victim.model, pick_device(0), *files)
        for _ in PipelineRun(nodes[:until], trial, workspace, {}, config.gates).steps():
            pass
        found = sorted((folder / "store" / "artifacts" / "pretrain").rglob("*.bin"))
        shutil.copy(found[0], path)
    return path


def study(folder: Path | None, attack: str, seed: int) -> StudyConfig:
    """Return the study of one piece; without a folder one that is looked at, not computed."""
    clean = {"checkpoint": str(clean_model(folder)), "activation": "gelu"} if folder else {"random_weights": True}
    return StudyConfig.model_validate(
        {
            "name": f"{attack}-{seed}",
            **({"store": str(folder / "store")} if folder else {}),
            "victim": {
                "data": {
                    "kind": "scenes",
                    "pretrain_pairs": 500,
                    "train_pairs": 1500,
                    "val_images": 108,
                    "test_images": 24,
                },
                "model": {"name": "tiny-rn", **clean},
                "attack": ATTACKS[attack],
                "implant": {"epochs": 6, "batch_size": 96, "learning_rate": 1e-3, "min_asr": 0.85},
            },
            "defense": {"kind": "ubt", "unlearn_epochs": 5, "retain_samples": 128, "retain_batch_size": 32},
            "search": {"design": "grid", "space": SPACE},
            "seeds": [seed],
            "objectives": {"epochs": "last"},  # every epoch is in the records all the same
            "tracking": {"enabled": False},
        }
    )


def computed(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Yield attack, seed and run folder of each piece that was begun."""
    for piece in PIECES:
        attack, _, seed = piece.partition("-")
        if (run := folder / "runs" / piece).is_dir():
            yield attack, int(seed), run


def main() -> None:
    """Compute pieces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pieces", nargs="*", metavar="ATTACK-SEED")
    given = parser.parse_args()
    observation.HELD = observation.LOOKED_AT = 2  # what a defender sees takes long, and no search here looks at it
    for piece in given.pieces or PIECES:
        attack, _, seed = piece.partition("-")
        sweep(study(given.folder.resolve(), attack, int(seed)), given.folder / "runs", "inline", resume="auto")


if __name__ == "__main__":
    main()
