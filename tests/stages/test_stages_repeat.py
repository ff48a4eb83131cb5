"""The same configuration and seed give the same bits: in another store, in another order, in another process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_victim import run_trial

from ubt.artifacts.store import ArtifactStore


def digests(root):
    """Return stage → the checksums of its artifact's payloads."""
    found = {}
    for manifest in ArtifactStore(root).manifests():
        assert manifest.stage not in found, "one artifact of each stage"
        found[manifest.stage] = {name: payload.checksum for name, payload in manifest.payloads.items()}
    return found


@pytest.fixture(scope="module")
def expected(tiny_run):
    return digests(tiny_run.root)


def test_a_fresh_store_gets_the_same_bits_whatever_was_drawn_before(tiny_run, tmp_path, expected):
    torch.manual_seed(11)
    np.random.seed(11)
    again = run_trial(tmp_path)[-1]
    assert digests(tmp_path) == expected
    assert again.val == tiny_run.record.val
    assert again.test == tiny_run.record.test
    assert [stage.diagnostics for stage in again.stages] == [stage.diagnostics for stage in tiny_run.record.stages]
    assert [stage.key for stage in again.stages] == [stage.key for stage in tiny_run.record.stages]


def test_what_is_read_from_the_store_leads_to_the_same_bits_as_what_is_still_in_memory(tiny_run, tmp_path, expected):
    root = tiny_run.copy(tmp_path)
    store = ArtifactStore(root)
    for manifest in list(store.manifests()):
        if manifest.stage not in {"pretrain", "poison", "overfit"}:
            store.remove(manifest)
    record = run_trial(root)[-1]
    assert [stage.stage for stage in record.stages if stage.reused] == ["pretrain", "poison", "overfit"]
    assert digests(root) == expected


def test_another_process_trains_the_same_victim_to_the_bit(tmp_path, expected):
    tests = str(Path(__file__).parents[1])
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny_victim import run_trial
run_trial(sys.argv[2], {"defense": {"kind": "none"}})
"""
    subprocess.run([sys.executable, "-c", code, tests, str(tmp_path)], check=True, stderr=subprocess.DEVNULL)
    victim = digests(tmp_path)
    assert all(victim[stage] == expected[stage] for stage in ("pretrain", "poison", "implant"))


def test_another_seed_gives_another_model_and_another_poison(tiny_run, tmp_path, expected):
    run_trial(tmp_path, {"defense": {"kind": "none"}}, seed=1)
    other = digests(tmp_path)
    for stage in ("pretrain", "poison", "implant"):
        assert other[stage] != expected[stage]
