from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from sweeps.cli import app
from sweeps.housekeeping import damaged, parse_age, removable, usage
from ubt.errors import UserError
from ubt.store import ArtifactStore, Meta

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def meta(key, stage="overfit", days_old=0, base=None, **fields):
    made = (NOW - timedelta(days=days_old)).isoformat()
    return Meta(stage=stage, key=key, version=1, seed=0, settings={}, inputs={}, base=base, created_at=made, **fields)


@pytest.fixture
def store(tmp_path):
    store = ArtifactStore(tmp_path / "store")
    for key in ("a", "b"):
        store.publish(meta(key, days_old=10, seconds=2.0), {"tensors": key.encode() * 100})
    return store


def test_usage_adds_up_by_stage_and_names_the_largest_first(store):
    store.publish(meta("c", stage="implant"), {"model": b"x" * 1000})
    rows = usage(store.metas())
    assert [(row.stage, row.artifacts, row.size_bytes, row.seconds) for row in rows] == [
        ("implant", 1, 1000, 0.0),
        ("overfit", 2, 200, 4.0),
    ]


def test_what_is_younger_than_the_given_age_stays():
    metas = [meta("old", days_old=40), meta("young", days_old=5)]
    assert [m.key for m in removable(metas, NOW - timedelta(days=30), frozenset())] == ["old"]


def test_what_a_kept_run_names_stays_with_all_that_it_is_a_difference_from():
    metas = [
        meta("victim", stage="implant", days_old=90),
        meta("middle", days_old=90, base="implant/victim"),
        meta("kept", days_old=90, base="overfit/middle"),
        meta("lost", days_old=90),
    ]
    assert [m.key for m in removable(metas, NOW, frozenset({"kept"}))] == ["lost"]


def test_an_altered_artifact_is_named_and_not_found_again(store, tmp_path):
    payload = next((tmp_path / "store" / "artifacts" / "overfit" / "a").glob("*.bin"))
    payload.write_bytes(b"altered")
    lines = damaged(store, list(store.metas()))
    assert len(lines) == 1
    assert "overfit a" in lines[0]
    assert store.keys("overfit") == {"b"}


@pytest.mark.parametrize(
    ("text", "span"), [("12h", timedelta(hours=12)), ("30d", timedelta(days=30)), ("2w", timedelta(weeks=2))]
)
def test_ages_are_written_as_a_number_and_a_unit(text, span):
    assert parse_age(text) == span


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "3 months"])
def test_other_ages_are_refused(text):
    with pytest.raises(UserError, match="older-than"):
        parse_age(text)


def test_prune_without_a_limit_is_refused_and_removes_nothing(store):
    result = CliRunner().invoke(app, ["store", "prune", "--store", store.root])
    assert isinstance(result.exception, UserError)
    assert store.keys("overfit") == {"a", "b"}


def test_a_dry_run_counts_and_removes_nothing_then_prune_removes_it(store):
    words = ["store", "prune", "--store", store.root, "--older-than", "1h"]
    assert "2 artifacts" in CliRunner().invoke(app, [*words, "--dry-run"]).output
    assert store.keys("overfit") == {"a", "b"}
    assert "2 artifacts" in CliRunner().invoke(app, words).output
    assert store.keys("overfit") == set()


def test_verify_exits_with_one_when_something_is_damaged(store, tmp_path):
    assert CliRunner().invoke(app, ["store", "verify", "--store", store.root]).exit_code == 0
    next((tmp_path / "store").rglob("*.bin")).write_bytes(b"")
    assert CliRunner().invoke(app, ["store", "verify", "--store", store.root]).exit_code == 1
