"""Does the backdoor of a study's victim take, under every seed and with every kind of a CPU's instructions?

python benchmarks/implants.py demo STORE --seeds 0 1 2 --capabilities default avx2 avx512

Bits depend on the instructions that torch uses (`ATEN_CPU_CAPABILITY`), and training makes other models of other bits.
The clean model of a seed is trained once, with the first kind, and poisoned with each. STORE gets a folder a kind;
what is in it is not computed again, and seeds can be added. Two at a time, each on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean

from sweeps.study.loading import load_study
from ubt.artifacts.store import ArtifactStore, local_cache
from ubt.data import content_key
from ubt.engine.graph import build_pipeline
from ubt.engine.runner import PipelineRun
from ubt.engine.workspace import Workspace
from ubt.models.clip import pick_device, use_threads

ONE, LAST = "--one", "implant"


def poisoned(study: str, store: Path, seed: int, changes: list[str]) -> dict[str, float]:
    """Return the rates of a study's poisoned model, computed in this process as far as the store does not have it."""
    use_threads(1)
    config = load_study(study, changes)
    trial = config.trial({})
    nodes = build_pipeline(trial, seed, content_key(trial.victim.data))
    until = [node.spec.name for node in nodes].index(LAST) + 1
    files = ArtifactStore(store), local_cache(str(store.parent))
    workspace = Workspace(trial.victim.data, trial.victim.model, pick_device(0), *files)
    run = PipelineRun(nodes[:until], trial, workspace, {}, config.gates)
    for _ in run.steps():
        pass
    rates = run.rates("poisoned", "test")
    assert rates is not None
    return {"asr": rates.asr or 0.0, "ca": rates.ca}


def elsewhere(study: str, store: Path, seed: int, capability: str, changes: list[str]) -> dict[str, float]:
    """Return the same, computed in a process of its own that uses these instructions."""
    words = [sys.executable, __file__, study, str(store), "--seeds", str(seed), ONE, *_set(changes)]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def _set(changes: list[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def main() -> None:
    """Print a line a seed, with ASR and CA on test for each kind of instructions."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study")
    parser.add_argument("store", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--capabilities", nargs="+", default=["avx512", "avx2", "default"])
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument(ONE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(poisoned(given.study, given.store, given.seeds[0], given.changes)))
        return
    first, *others = given.capabilities
    found: dict[tuple[int, str], dict[str, float]] = {}

    def compute(seed: int, capability: str) -> None:
        place = given.store / capability
        found[seed, capability] = elsewhere(given.study, place, seed, capability, given.changes)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: compute(seed, first), given.seeds))
        for capability in others:
            clean = Path("artifacts") / "pretrain"
            shutil.copytree(given.store / first / clean, given.store / capability / clean, dirs_exist_ok=True)
        list(pool.map(lambda pair: compute(*pair), [(seed, other) for seed in given.seeds for other in others]))
    print(f"{'seed':<6}" + "".join(f"{name:<18}" for name in given.capabilities))
    for seed in given.seeds:
        print(
            f"{seed:<6}" + "".join("ASR {asr:.3f} CA {ca:.3f}  ".format(**found[seed, c]) for c in given.capabilities)
        )
    rates = [one["asr"] for one in found.values()]
    accuracies = [one["ca"] for one in found.values()]
    print(f"ASR {min(rates):.3f} … {max(rates):.3f}, mean {fmean(rates):.3f}; CA {min(accuracies):.3f} at least")


if __name__ == "__main__":
    main()
