"""What a GPU computes beside what a CPU does, its memory, and who is given one: `make test-gpu`, with CUDA."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_victim import run_trial

from ubt.artifacts.store import ArtifactStore
from ubt.attacks import ATTACKS, Rows
from ubt.common.errors import UserError
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.evaluation import Evaluator
from ubt.methods.stamping import Stamper
from ubt.models.clip import peak_memory_bytes, pick_device, reset_peak_memory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

FLOAT32, BFLOAT16 = 1e-3, 2e-2
"""Largest differences of numbers in unit embeddings. cuDNN computes convolutions of float32 in TF32, with 10 bits."""
RATES_IN_BFLOAT16 = 0.05
"""Largest difference of a rate: images that lie between two classes go to either."""
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def models(bench):
    """Return the poisoned model on the CPU and on the GPU, and what judges it."""
    clip = bench.context("unlearn").clip("poisoned")
    there = replace(clip.with_state(clip.state()), device=CUDA)
    there.net.to(CUDA)
    poison = bench.artifact("poison")
    return clip, there, Evaluator(bench.workspace.data, PoisonManifest.of(poison).attack)


@pytest.mark.parametrize(("precision", "most"), [("float32", FLOAT32), ("bfloat16", BFLOAT16)])
def test_embeddings_are_those_of_the_cpu(models, precision, most):
    clip, there, evaluator = models
    here = evaluator.shown(clip, "val")
    found = evaluator.shown(replace(there, precision=precision), "val")
    assert (found.clean - here.clean).abs().max() <= most
    assert (found.triggered - here.triggered).abs().max() <= most


def test_rates_in_float32_are_those_of_the_cpu(models):
    clip, there, evaluator = models
    here, found = evaluator.rates(clip, "test"), evaluator.rates(there, "test")
    assert found.ca == pytest.approx(here.ca, abs=1e-3)
    assert found.asr == pytest.approx(here.asr, abs=1e-3)


def test_rates_in_bfloat16_are_near_those_of_the_cpu(models):
    clip, there, evaluator = models
    here, found = evaluator.rates(clip, "test"), evaluator.rates(replace(there, precision="bfloat16"), "test")
    assert found.ca == pytest.approx(here.ca, abs=RATES_IN_BFLOAT16)
    assert found.asr == pytest.approx(here.asr, abs=RATES_IN_BFLOAT16)


@pytest.mark.parametrize("kind", ["badnets", "blended", "sig", "wanet", "label_consistent"])
def test_triggers_are_those_of_the_cpu_to_a_grey_level(kind):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size=(4, 32, 32, 3), dtype=np.uint8))
    attack, rows = ATTACKS.get(kind)(), Rows.first(4)
    here, there = (Stamper(attack, device)(images, rows).cpu().int() for device in (torch.device("cpu"), CUDA))
    assert (here - there).abs().max() <= 1


def test_a_trial_that_is_given_a_gpu_computes_there(tmp_path):
    *_, record = run_trial(tmp_path, gpus=1.0)
    assert record.state == "DONE", record.reason
    manifests = [ArtifactStore(tmp_path).manifest(stage.stage, stage.key) for stage in record.stages]
    assert {manifest.device for manifest in manifests} == {"cuda"}
    assert torch.cuda.memory_allocated() < 1 << 30


def test_a_trial_that_is_given_none_leaves_the_gpu_alone():
    assert pick_device(0) == torch.device("cpu")
    assert pick_device(0.5) == CUDA


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU"):
        pick_device(1)


def test_peak_memory_is_of_the_gpu_since_it_was_reset():
    reset_peak_memory(CUDA)
    before = peak_memory_bytes(CUDA)
    held = torch.empty(64 << 20, dtype=torch.uint8, device=CUDA)
    del held
    assert 64 << 20 <= peak_memory_bytes(CUDA) - before <= 80 << 20
    reset_peak_memory(CUDA)
    assert peak_memory_bytes(CUDA) <= before + (1 << 20)
