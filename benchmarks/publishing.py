"""What publishing a full model costs beside writing it with safetensors' `save_file`: seconds, and of them CPU.

What is published has reached the disk; `save_file` leaves that to the system. So both are shown: it alone, and with the
wait for the disk.

python benchmarks/publishing.py                 # 604 MB of weights, ViT-B/32's size, in a folder of /tmp
python benchmarks/publishing.py --uploads       # a small trial whose store takes 10 MB a second, beside one that waits
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from ubt.artifacts.codec import MODEL, encode
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.payloads import Content
from ubt.artifacts.store import ArtifactStore
from ubt.engine import runner
from ubt.engine.workspace import Workspace
from ubt.testing import TINY
from ubt.trials.config import TrialConfig
from ubt.trials.gates import Gates

UPLOADED_BYTES = 10e6
"""What the store of `--uploads` takes in a second: a tiny model's 15 MB as long as 150 MB at 100 MB/s."""


def main() -> None:
    """Print the quickest of both in turns, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=604)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--uploads", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.uploads:
        uploads()
        return
    weights = {f"layer{at}": torch.randn(1 << 20) for at in range(asked.megabytes * 1000 * 1000 >> 22)}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        store = ArtifactStore(folder)

        def publish() -> None:
            key = uuid.uuid4().hex
            described = ArtifactManifest(stage="try", key=key, version=1, seed=0, settings={}, inputs={})
            store.remove(store.publish(described, {MODEL: encode(weights)}))

        def bare(lasting: bool = False) -> None:
            path = Path(folder) / "bare.safetensors"
            save_file(weights, path)
            if lasting:
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
            path.unlink()

        publish()
        turns = [(_took(bare), _took(partial(bare, lasting=True)), _took(publish)) for _ in range(asked.turns)]
    for name, at in (("wall", 0), ("CPU", 1)):
        one, lasting, other = (sorted(turn[which][at] for turn in turns) for which in range(3))
        for what, seconds in (("save_file", one), ("save_file, on the disk", lasting), ("publish", other)):
            print(f"{name}: {what}: {seconds[0]:.2f} s at best, {seconds[len(seconds) // 2]:.2f} s in the middle")
        print(f"{name}: publish / save_file {other[0] / one[0]:.2f}, with the disk {other[0] / lasting[0]:.2f}")


def uploads() -> None:
    """Print what a trial takes whose store is at an address, with uploads beside its computing and without."""
    spent: list[float] = []

    class Slow(ArtifactStore):
        def put(self, complete: ArtifactManifest, payloads: Mapping[str, Content]) -> None:
            began = time.perf_counter()
            time.sleep(complete.size_bytes / UPLOADED_BYTES)
            super().put(complete, payloads)
            spent.append(time.perf_counter() - began)

    runner.ArtifactStore = Slow  # type: ignore[misc,attr-defined]
    trial = TrialConfig.model_validate(TINY)
    gates = Gates.model_validate({"clean_accuracy": {"act": "report"}})
    beside = Workspace.publish

    def waits(
        self: Workspace, described: ArtifactManifest, payloads: Mapping[str, Content], at_once: bool = True
    ) -> ArtifactManifest:
        return beside(self, described, payloads, at_once=True)

    for how, publish in (("first", beside), ("beside", beside), ("waiting", waits), ("beside", beside)):
        Workspace.publish = publish  # type: ignore[method-assign]
        spent.clear()
        wall, _ = _took(lambda: runner.run_trial(trial, f"memory://{uuid.uuid4().hex}", gates=gates))
        print(f"{how}: {wall:.2f} s, of which {sum(spent):.2f} s of uploads could be beside the computing")


def _took(run: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
