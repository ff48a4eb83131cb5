"""A toy run with artifacts: 200 pairs of which every tenth is poisoned, scored as figures need them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from analysis.findings import Findings, find
from analysis.records import read_run
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.trials.record import StageRecord, TrialRecord

PAIRS = 200
POISONED = np.arange(0, PAIRS, 10)
SUSPECTS = np.arange(0, PAIRS, 4)
CAPTIONS = [[["a ", 0.05], ["banana", 0.95 - i / 100], [f"word{i}", i / 100]] for i in range(6)]


@dataclass
class ToyRun:
    """A run in the making, and its store."""

    root: Path
    trial: Callable[..., TrialRecord]
    records: list[TrialRecord] = field(default_factory=list)

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.root / "store")

    @property
    def folder(self) -> Path:
        return self.root / "run"

    def publish(self, stage: str, key: str, facts: dict | None = None, **tensors: np.ndarray) -> None:
        meta = ArtifactManifest(stage=stage, key=key, version=1, seed=0, settings={}, inputs={}, facts=facts or {})
        self.store.publish(meta, {"tensors": save(tensors)} if tensors else {})

    def add(self, *stages: str, metrics: dict | None = None, **fields: object) -> TrialRecord:
        """Add a trial that ran `poison` and these stages; its artifacts lie under `<stage>-<number>`."""
        number, measured = len(self.records), metrics or {}
        names = ("poison", "implant", *stages, "evaluate")
        done = tuple(
            StageRecord(stage=name, key=f"{name}-{number}", reused=False, seconds=1, diagnostics=measured.get(name, {}))
            for name in names
        )
        record = self.trial(number, stages=done, **fields)
        self.publish("poison", f"poison-{number}", indices=POISONED)
        self.records.append(record)
        return record

    def add_ubt(self, data: str = "suspicious", **fields: object) -> TrialRecord:
        changes = {"defense.overfit_data": data, "defense.overfit_epochs": 3, **fields.pop("changes", {})}
        record = self.add("suspect", "overfit", "select", "attribute", changes=changes, **fields)
        number, marks = record.number, np.isin(SUSPECTS, POISONED)
        every = np.linspace(-0.2, 0.6, PAIRS).astype(np.float32)
        self.publish("suspect", f"suspect-{number}", indices=SUSPECTS)
        overfitted = {"similarities": (0.1 + 0.8 * marks).astype(np.float32), "similarities_before": every[SUSPECTS]}
        self.publish(
            "overfit", f"overfit-{number}", **overfitted, **({"all_similarities": every} if data == "all" else {})
        )
        self.publish("select", f"select-{number}", indices=np.r_[POISONED[:5], [4]])
        self.publish("attribute", f"attribute-{number}", {"captions": CAPTIONS}, relevance=np.zeros((6, 3)))
        return record

    def add_abl(self, **fields: object) -> TrialRecord:
        changes = {"defense": {"kind": "abl", "isolate_by": "gain"}, **fields.pop("changes", {})}
        record = self.add("rank", "isolate", changes=changes, metrics={"rank": {"auroc_gain": 0.75}}, **fields)
        similarities = np.linspace(0, 1, PAIRS).astype(np.float32)
        self.publish("isolate", f"isolate-{record.number}", similarities=similarities)
        return record

    def write(self) -> Path:
        from ubt.trials.record import write_record

        (self.folder / "records").mkdir(parents=True, exist_ok=True)
        study = {"name": "toy", "store": str(self.root / "store")}
        (self.folder / "study.json").write_text(json.dumps(study))
        for record in self.records:
            write_record(self.folder / "records", record)
        return self.folder

    def findings(self) -> Findings:
        return find(read_run(self.write()))


@pytest.fixture
def toy(tmp_path, trial) -> ToyRun:
    """The builder of a run with artifacts."""
    return ToyRun(tmp_path, trial)
