"""Which of Tune's trials keep idle workers."""

from __future__ import annotations

from sweeps.backends.warm_workers import START_SECONDS, WORKER_SECONDS, WarmWorkers


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_nothing_starts_before_all_workers_that_were_asked_for_are_up() -> None:
    warm = WarmWorkers(Clock())
    warm.begin(2)
    warm.start("a")
    warm.is_up("a")
    assert warm.starting, "the second has not even been started"
    warm.start("b")
    assert warm.starting
    warm.is_up("b")
    assert not warm.starting


def test_a_worker_that_never_comes_up_holds_the_others_for_a_while_only() -> None:
    clock = Clock()
    warm = WarmWorkers(clock)
    warm.begin(2)
    warm.start("a")
    warm.is_up("a")
    clock.seconds += START_SECONDS
    assert warm.starting
    clock.seconds += 0.1
    assert not warm.starting


def test_there_are_no_more_idle_trials_than_workers_without_a_trial() -> None:
    warm = WarmWorkers()
    warm.begin(3)
    assert warm.wanted(running=2)
    warm.start("a")
    assert not warm.wanted(running=2)
    assert warm.wanted(running=1)
    assert "a" in warm
    warm.ended("a", failed=False)
    assert "a" not in warm
    assert warm.wanted(running=2)


def test_one_worker_is_released_for_one_assignment() -> None:
    warm = WarmWorkers()
    assert warm.release()
    assert not warm.release(), "one has been released already"
    warm.taken()
    assert warm.release()


def test_if_a_worker_cannot_be_started_trials_are_left_to_say_why() -> None:
    warm = WarmWorkers()
    warm.begin(2)
    warm.start("a")
    warm.ended("a", failed=True)
    assert not warm.wanted(running=0)
    assert not warm.starting


def test_trials_do_not_wait_for_the_worker_that_takes_the_place_of_one_that_died() -> None:
    warm = WarmWorkers(Clock())
    warm.begin(2)
    for trial_id in "ab":
        warm.start(trial_id)
        warm.is_up(trial_id)
    warm.ended("a", failed=True)
    assert warm.wanted(running=0)
    warm.start("c")
    assert not warm.starting, "the other one is up"


def test_an_idle_trial_ends_for_an_assignment_that_waits_for_its_worker() -> None:
    """It may have been handed out while workers were starting, which a loaded machine takes minutes for."""
    clock = Clock()
    warm = WarmWorkers(clock)
    assert not warm.frees_a_worker(["a", "b"]), "it is about to get one"
    clock.seconds += WORKER_SECONDS + 0.1
    assert warm.frees_a_worker(["a", "b"])
    assert warm.frees_a_worker(["a", "b"]), "one for each"
    assert not warm.frees_a_worker(["a", "b"])
    clock.seconds += WORKER_SECONDS + 0.1
    assert warm.frees_a_worker(["b"]), "somebody else took it"
    assert not warm.frees_a_worker([])
    assert not warm.frees_a_worker(["b"]), "it waits again, from now on"
