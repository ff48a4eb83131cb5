"""Which of Tune's trials keep idle workers."""

from __future__ import annotations

from sweeps.backends.warm_workers import START_SECONDS, Placeholders


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_nothing_starts_before_all_workers_that_were_asked_for_are_up() -> None:
    places = Placeholders(Clock())
    places.begin(2)
    places.hand_out("a")
    places.is_up("a")
    assert places.starting, "the second has not even been handed out"
    places.hand_out("b")
    assert places.starting
    places.is_up("b")
    assert not places.starting


def test_a_worker_that_never_comes_up_holds_the_others_for_a_while_only() -> None:
    clock = Clock()
    places = Placeholders(clock)
    places.begin(2)
    places.hand_out("a")
    places.is_up("a")
    clock.seconds += START_SECONDS
    assert places.starting
    clock.seconds += 0.1
    assert not places.starting


def test_there_are_no_more_placeholders_than_workers_without_a_trial() -> None:
    places = Placeholders()
    places.begin(3)
    assert places.wanted(running=2)
    places.hand_out("a")
    assert not places.wanted(running=2)
    assert places.wanted(running=1)
    assert "a" in places
    places.ended("a", failed=False)
    assert "a" not in places
    assert places.wanted(running=2)


def test_one_makes_room_for_one_assignment() -> None:
    places = Placeholders()
    assert places.release()
    assert not places.release(), "the room is there already"
    places.taken()
    assert places.release()


def test_if_a_worker_cannot_be_started_trials_are_left_to_tell_why() -> None:
    places = Placeholders()
    places.begin(2)
    places.hand_out("a")
    places.ended("a", failed=True)
    assert not places.wanted(running=0)
    assert not places.starting
