"""The oracle: what training without the poison gives. It knows what is poisoned, and says so."""

import numpy as np
import pytest
import torch
from tiny_victim import run_trial, tiny_trial

from ubt.common.errors import StageFault, UserError
from ubt.defenses import DEFENSES
from ubt.engine import epochs
from ubt.engine.poisoning import PoisonManifest
from ubt.engine.spec import STAGES
from ubt.stages import victim

ORACLE = {"defense": {"kind": "oracle"}}


def trained_on(monkeypatch, context):
    """Return what the oracle hands to training: pairs, tokens, recipe."""
    seen = []
    monkeypatch.setattr(epochs, "train_on_pairs", lambda clip, *given: seen.append(given) or iter([(1, 0.0)]))
    list(victim.retrain(context))
    return seen[0]


def test_it_trains_on_all_pairs_but_the_poisoned_by_the_implants_recipe(bench, monkeypatch):
    context = bench.context("retrain", ORACLE)
    pairs, tokens, recipe, *_ = trained_on(monkeypatch, context)
    kept = np.setdiff1d(np.arange(200), context.manifest.indices)
    assert len(pairs) == 180
    assert np.array_equal(pairs.take(np.arange(180)), context.data.train.images[kept])
    assert pairs.captions == [context.data.train.captions[index] for index in kept]
    assert torch.equal(tokens[:], context.pair_tokens[kept])
    assert recipe == victim.recipe(bench.context("implant"))


def test_it_starts_from_the_clean_model(bench, monkeypatch):
    started = []
    monkeypatch.setattr(epochs, "train_on_pairs", lambda clip, *_: started.append(clip.state()) or iter([(1, 0.0)]))
    context = bench.context("retrain", ORACLE)
    list(victim.retrain(context))
    clean = context.artifact("clean").weights
    assert all(torch.equal(value, clean[name]) for name, value in started[0].items())


def test_the_implants_settings_are_part_of_its_key(bench):
    def key(changes):
        return bench.nodes({**ORACLE, **changes})["retrain"].key

    assert key({"victim.implant.epochs": 2}) != key({})
    assert key({"victim.implant.min_asr": 0.9}) == key({})


def test_a_victim_that_came_poisoned_has_no_oracle(bench, monkeypatch, tmp_path):
    context = bench.context("retrain", ORACLE)
    unknown = PoisonManifest(np.zeros(0, dtype=np.int64), [], context.manifest.attack)
    monkeypatch.setattr(type(context), "manifest", unknown)
    with pytest.raises(StageFault, match="it is unknown which pairs are poisoned"):
        list(victim.retrain(context))
    trial = tiny_trial({**ORACLE, "victim.implant.checkpoint": str(tmp_path / "given.pt")})
    with pytest.raises(UserError, match="needs to know which pairs are poisoned"):
        trial.check_defense()


def test_no_defense_but_the_oracle_knows_the_poison():
    assert [defense().kind for defense in DEFENSES if defense.knows_poison] == ["oracle"]
    assert STAGES.get("retrain").sees_poison


def test_a_trial_of_the_oracle_runs_to_its_end(tiny_run, tmp_path):
    record = run_trial(tiny_run.copy(tmp_path), ORACLE)[-1]
    assert record.state == "DONE", record.reason
    assert record.stages[-2].stage == "retrain"
    assert record.stages[-2].diagnostics == {"pairs": 180, "clean_pairs": 0}
