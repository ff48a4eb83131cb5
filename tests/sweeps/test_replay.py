"""`ubt replay`: the tiny trial computed again in a fresh store, and what is said where something differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from exported_runs import run_folder

from analysis import load_run
from sweeps.cli.app import main
from sweeps.replaying.compute import Replayed, checked_alike, replay
from sweeps.replaying.differences import Difference, StageDifferences, rate_differences, stage_differences
from sweeps.replaying.text import replayed_text
from sweeps.replaying.wanted import Check, wanted
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import UserError
from ubt.testing import TINY
from ubt.trials.rates import Rates
from ubt.trials.record import State, TrialRecord


@pytest.fixture
def record(tiny_run: Any) -> TrialRecord:
    return tiny_run.record


def with_stage(record: TrialRecord, name: str, **fields: Any) -> TrialRecord:
    """Return the record with other fields in one of its stages."""
    stages = [stage.model_copy(update=fields) if stage.stage == name else stage for stage in record.stages]
    return record.model_copy(update={"stages": tuple(stages)})


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["ubt", "replay", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_same_study_and_seed_give_the_same_bits(record, tiny_run, tmp_path, monkeypatch, capsys):
    run, kept = run_folder(tmp_path / "run", tiny_run.root, record), tmp_path / "kept"
    assert command(monkeypatch, run, "tiny-0", "--store", kept, "--json") == 0
    found = Replayed.model_validate_json(capsys.readouterr().out)
    assert (found.expected, found.same_bits, found.as_expected, found.unknown) == ("bits", True, True, ())
    assert [stage.stage for stage in found.stages] == [stage.stage for stage in record.stages]
    assert {stage.artifact for stage in found.stages} == {"same"}
    assert found.rates["test"] == (record.test, record.test)
    assert {manifest.stage for manifest in ArtifactStore(kept).manifests()} == {s.stage for s in record.stages}
    with pytest.raises(UserError, match="would not be computed again"):
        replay(run, "tiny-0", store=kept)


def test_what_differs_is_named_where_it_begins(record, tiny_run, tmp_path, monkeypatch, capsys):
    (stage,) = (stage for stage in record.stages if stage.stage == "unlearn")
    first = stage.epochs[0].model_copy(update={"loss": 123.0})
    changed = with_stage(record, "unlearn", epochs=(first, *stage.epochs[1:]))
    store = tiny_run.copy(tmp_path)
    _spoil_facts(ArtifactStore(store), record, "select")
    run = run_folder(tmp_path / "run", store, changed)
    assert command(monkeypatch, run, "tiny-0@1") == 1
    said = capsys.readouterr().out
    assert "begins to differ in stage `select`" in said
    assert "by no number in the record" in said
    assert "the same bits were to be expected" in said
    assert "(not measured then)" in said, "test rates of an epoch on the way"
    assert [line.split()[:3] for line in said.splitlines() if line.startswith("unlearn")] == [
        ["unlearn", "1", "differ"]
    ]
    assert "evaluate" not in said


def _spoil_facts(store: ArtifactStore, record: TrialRecord, name: str) -> None:
    """Have the store say something else of one stage's result."""
    key = next(stage.key for stage in record.stages if stage.stage == name)
    manifest = store.manifest(name, key)
    store.publish(
        manifest.model_copy(update={"facts": {"spoilt": 1}}),
        {payload: store.read(manifest, payload) for payload in manifest.payloads},
    )


@pytest.fixture
def refused(tiny_run: Any, tmp_path: Path) -> Callable[..., str]:
    """Return what is said of a replay that computes nothing."""

    def of(record: TrialRecord, trial: str = "tiny-0", **study: Any) -> str:
        run = run_folder(tmp_path / "run", study.pop("store", tiny_run.root), record, **study)
        with pytest.raises(UserError) as caught:
            replay(run, trial)
        return str(caught.value)

    return of


def test_a_seed_that_is_none_of_the_study_is_refused(refused, record):
    assert "study.json: seeds: are 1, 2, and tiny-0 has another (given: 0)" in refused(record, seeds=[1, 2])


def test_a_study_that_was_changed_is_refused_with_what_differs(refused, record):
    tiny = json.loads(json.dumps(TINY))
    tiny["defense"]["unlearn_epochs"] = 1
    said = refused(record, **tiny)
    assert "tiny-0: defense.unlearn_epochs: is 1 by the study, and was 2" in said
    assert said.count("by the study") == 1


def test_work_that_would_be_another_today_is_refused_with_what_differs(refused, record, tiny_run, tmp_path):
    store = ArtifactStore(tiny_run.copy(tmp_path))
    implant = next(stage for stage in record.stages if stage.stage == "implant")
    kept = store.manifest("implant", implant.key)
    assert "the store no longer says which" in refused(with_stage(record, "implant", key="gone"), store=store.root)
    for key, fields, why in (
        ("older", {"version": 0}, f"its code was of version 0, and is of {kept.version}"),
        ("faster", {"settings": {**kept.settings, "learning_rate": 7.0}}, "learning_rate was 7.0, and is"),
        ("seed", {"seed": 9}, "its seed was 9, and is 0"),
        ("data", {}, "the data that it reads"),
    ):
        store.publish(kept.model_copy(update={"key": key, **fields}), {})
        said = refused(with_stage(record, "implant", key=key), store=store.root)
        assert "stage `implant`: would be other work today" in said
        assert why in said


@pytest.mark.parametrize(
    ("trial", "why"),
    [
        ("t9", "has none of that name"),
        ("tiny-0@0", "is no epoch"),
        ("tiny-0@3", "has fewer epochs: 2"),
    ],
)
def test_a_trial_or_epoch_that_is_not_there_is_refused(refused, record, trial, why):
    assert why in refused(record, trial)


@pytest.mark.parametrize("fields", [{"state": State.RUNNING}, {"state": State.FAILED, "lost": True}, {"stages": ()}])
def test_a_trial_that_says_nothing_is_refused(refused, record, fields):
    assert "nothing to hold another computation against" in refused(record.model_copy(update=fields))


def test_a_trial_that_was_stopped_early_is_computed_as_far_as_it_went(record, tiny_run, tmp_path):
    (stage,) = (stage for stage in record.stages if stage.stage == "unlearn")
    stopped = with_stage(record, "unlearn", epochs=stage.epochs[:1], complete=False)
    stopped = stopped.model_copy(update={"state": State.PRUNED, "stages": stopped.stages[:-1]})
    asked = wanted(load_run(run_folder(tmp_path / "run", tiny_run.root, stopped)), "tiny-0")
    assert asked.upto == ("unlearn", 1)
    assert asked.trial.defense.unlearn_epochs == 1
    assert asked.pipeline[-2].at(2).key == stage.key, "the same work, up to there"


def test_every_number_of_a_stage_is_compared(record):
    def of(now: TrialRecord) -> list[str]:
        return [one.where for stage in stage_differences(record, now, {}, {}) for one in stage.differences]

    assert of(record) == []
    (stage,) = (stage for stage in record.stages if stage.stage == "unlearn")
    last = stage.epochs[-1]
    rates = last.val.model_copy(update={"asr": 0.123})
    changed = last.model_copy(update={"val": rates, "loss": 5.0})
    assert of(with_stage(record, "unlearn", epochs=(stage.epochs[0], changed))) == [
        *("unlearn: epoch 2: loss", "unlearn: epoch 2: val: asr")
    ]
    assert of(with_stage(record, "unlearn", epochs=stage.epochs[:1])) == ["unlearn: epochs"]
    assert of(with_stage(record, "suspect", diagnostics={})) == [
        f"suspect: {name}" for s in record.stages if s.stage == "suspect" for name in s.diagnostics
    ]
    assert of(record.model_copy(update={"stages": record.stages[:-1]})) == ["evaluate: computed"]


def test_other_payloads_are_other_bits_and_missing_ones_are_not_known(record, store):
    kept = {stage.stage: store.manifest(stage.stage, stage.key) for stage in record.stages}
    payload = next(iter(kept["implant"].payloads.values())).model_copy(update={"xxh3": "0"})
    other = kept["implant"].model_copy(update={"payloads": dict.fromkeys(kept["implant"].payloads, payload)})
    made = {**kept, "implant": other}
    made.pop("overfit")
    found = {stage.stage: stage.artifact for stage in stage_differences(record, record, kept, made)}
    assert {stage: bits for stage, bits in found.items() if bits != "same"} == {
        "implant": "other",
        "overfit": "unknown",
    }


def test_artifacts_of_before_are_compared_by_the_checksum_that_they_have(record, store):
    made = {stage.stage: store.manifest(stage.stage, stage.key) for stage in record.stages}
    old = {}
    for name, one in made.items():
        payloads = {
            part: payload.model_copy(update={"xxh3": "", "sha256": sha256(store.read(one, part)).hexdigest()})
            for part, payload in one.payloads.items()
        }
        old[name] = one.model_copy(update={"payloads": payloads})
    base = old["implant"].payloads["model"].sha256
    kept = {
        name: one.model_copy(update={"base_checksum": base}) if (one.base or "").startswith("implant/") else one
        for name, one in old.items()
    }
    found = stage_differences(record, record, kept, checked_alike(made, kept, store))
    assert {stage.artifact for stage in found} == {"same"}
    assert "other" in {stage.artifact for stage in stage_differences(record, record, kept, made)}


def replayed(expected: str, asr: float, device: str = "AVX2", **fields: Any) -> Replayed:
    """Return what came of a trial whose ASR was 0.10."""
    then, now = (
        Rates(
            ca=0.9,
            ca_images=1,
            ca_low=0.8,
            ca_high=1,
            asr=one,
            asr_images=1,
            asr_low=0,
            asr_high=1,
            triggered_accuracy=0,
        )
        for one in (0.1, asr)
    )
    outcome = rate_differences({"val": then}, {"val": now})
    stage = StageDifferences(stage="implant", artifact="other" if outcome else "same")
    described: dict[str, Any] = {
        "run": "runs/demo",
        "trial": "t0",
        "seed": 0,
        "checks": (Check(what="device", then="AVX512", now=device),),
        "expected": expected,
        "tolerance": 0.02,
        "stages": (stage,),
        "outcome": outcome,
        "rates": {"val": (then, now)},
        "seconds": 1.0,
    }
    return Replayed.model_validate({**described, **fields})


@pytest.mark.parametrize(
    ("expected", "asr", "ok", "said"),
    [
        ("bits", 0.1, True, "The same, bit for bit."),
        ("bits", 0.11, False, "the same bits were to be expected"),
        ("tolerance", 0.11, True, "Within 2 points: rates are at most 1.0 points apart"),
        ("tolerance", 0.13, False, "Not within 2 points: 3.0 points apart"),
    ],
)
def test_bits_are_expected_on_the_same_kind_of_device_and_a_tolerance_elsewhere(expected, asr, ok, said):
    found = replayed(expected, asr)
    assert found.as_expected is ok
    assert said in replayed_text(found)
    assert "device: AVX2 (then: AVX512)" in replayed_text(found)


def test_a_trial_that_ends_otherwise_is_within_no_tolerance():
    ended = Difference(where="state", then="DONE", now="FAILED")
    found = replayed("tolerance", 0.1, outcome=(ended,), reason="the implant is too weak")
    assert not found.as_expected
    assert "it ended otherwise" in replayed_text(found)
    assert "it failed: the implant is too weak" in replayed_text(found)


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [("a", "a", True), ("a", "b", False), ("", "a", None), ("a+", "a+", None), ("a", "a+", None)],
)
def test_code_with_changes_that_no_commit_has_may_be_any(then, now, same):
    assert Check(what="code", then=then, now=now).same is same
