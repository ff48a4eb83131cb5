"""What a plan says that the store holds at most."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sweeps.planning.peak import StorePeak, store_peak


def peak(*trials: str, at_a_time: int = 1, **sizes: float | None) -> StorePeak:
    """Of trials, each a word whose letters are its stages; each takes ten bytes if nothing else is said."""
    pipelines: Any = [[SimpleNamespace(key=key) for key in trial] for trial in trials]
    pieces: Any = {key: SimpleNamespace(size_bytes=sizes.get(key, 10.0)) for trial in trials for key in trial}
    return store_peak(pipelines, pieces, at_a_time)


def test_everything_is_there_in_the_end_and_what_is_shared_counts_once() -> None:
    assert peak("va", "vb", "vc").everything_bytes == 40


def test_an_artifact_is_needed_from_the_first_trial_to_the_last_that_has_it() -> None:
    assert peak("va", "vb", "vc").needed_bytes == 20
    assert peak("va", "vb", "wc", "wd").needed_bytes == 20
    assert peak("va", "wb", "vc").needed_bytes == 30


def test_trials_that_run_beside_each_other_need_theirs_at_a_time() -> None:
    assert peak("va", "vb", "vc", at_a_time=2).needed_bytes == 30


def test_a_budget_does_not_make_less_of_it_than_trials_need() -> None:
    found = peak("va", "vb", "vc")
    assert [found.within(budget) for budget in (None, 100, 30, 5)] == [None, 40, 30, 20]


def test_what_is_not_known_is_not_guessed() -> None:
    assert peak("va", "vb", a=None) == StorePeak(None, None)
