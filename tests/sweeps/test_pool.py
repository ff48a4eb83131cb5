"""How many workers a sweep asks for and keeps, and which of Tune's trials do that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweeps.workers.places import Place
from sweeps.workers.pool import LIVELY_SECONDS, UNUSED_SECONDS, WORKER_SECONDS, Capacity, Pool

HERE = Place("w", "n")


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def pool(now: int, most: int | None = None, kept: bool = False) -> tuple[Pool, Clock]:
    clock = Clock()
    return Pool(Capacity(now, now if most is None else most, kept), clock), clock


def test_eight_gpus_at_half_a_gpu_a_trial_are_all_used_though_there_were_none_at_the_start() -> None:
    sixteen, _ = pool(0, 8)
    assert sixteen.wanted(busy=0, ready=60, waiting=60) == 8, "asked for, so that an autoscaler adds nodes"
    sixteen.capacity = Capacity(16, 32)
    assert sixteen.wanted(busy=8, ready=52, waiting=52) == 32
    assert sixteen.lacking(8, 16) == 8


def test_what_a_study_says_is_a_cap() -> None:
    assert Capacity(16, 32).up_to(4) == Capacity(4, 4)
    assert Capacity(2, 10).up_to(4) == Capacity(2, 4)
    assert Capacity(2, 10).up_to(None) == Capacity(2, 10)


def test_workers_are_kept_for_trials_that_wait_for_a_stage_as_long_as_something_comes_on() -> None:
    workers, clock = pool(4, 12)
    assert workers.wanted(busy=1, ready=0, waiting=80) == 4, (
        "no more: nodes are added for what may start, not for what waits"
    )
    clock.seconds += LIVELY_SECONDS
    assert workers.wanted(busy=1, ready=0, waiting=80) == 1, "an hour's training need not hold four GPUs"
    assert workers.wanted(busy=1, ready=2, waiting=80) == 3
    workers.came_on()
    assert workers.wanted(busy=1, ready=0, waiting=80) == 4


def test_on_a_machine_of_its_own_a_sweep_keeps_its_workers_while_anything_waits() -> None:
    workers, clock = pool(2, kept=True)
    clock.seconds += 100 * LIVELY_SECONDS
    assert workers.wanted(busy=1, ready=0, waiting=5) == 2
    assert workers.wanted(busy=1, ready=0, waiting=0) == 1


def test_an_idle_worker_goes_when_no_trial_that_waits_could_use_it() -> None:
    workers, _ = pool(3)
    for name in "ab":
        workers.ask(name)
        workers.keep(name, HERE)
    assert not workers.ends_with("a", busy=1, ready=0, wanted=3, without_worker=[])
    assert workers.ends_with("a", busy=1, ready=0, wanted=2, without_worker=[])
    workers.ended("a")
    assert workers.free() is None, "it is no worker that the next trial gets"
    assert not workers.ends_with("b", busy=1, ready=0, wanted=2, without_worker=[])


def test_a_worker_is_free_when_its_idle_trial_ends_for_a_trial_or_a_trial_of_the_study_ends() -> None:
    workers, _ = pool(2)
    workers.ask("a")
    workers.keep("a", HERE)
    assert workers.ends_with("a", busy=0, ready=1, wanted=1, without_worker=[])
    workers.ended("a")
    assert workers.free() == HERE
    assert workers.free() is None
    workers.freed(HERE)
    workers.lost()
    assert workers.free() is None, "its node gets no more trials"


def test_what_was_asked_for_is_taken_back_when_it_has_been_too_much_for_a_while() -> None:
    workers, clock = pool(1, 9)
    for name in "abc":
        workers.ask(name)
    workers.keep("b", HERE)
    assert workers.unused(busy=0, wanted=2) == []
    clock.seconds += UNUSED_SECONDS
    assert workers.unused(busy=0, wanted=2) == ["c"], "the newest that is not up"
    assert workers.unused(busy=0, wanted=3) == []
    assert workers.unused(busy=0, wanted=2) == [], "from now on"
    assert workers.unused(busy=0, wanted=0) == ["c", "a"], "at once at the end"


def test_a_worker_that_does_not_come_up_is_noted_and_one_that_dies_later_is_not() -> None:
    workers, _ = pool(2)
    for name in "ab":
        workers.ask(name)
    workers.keep("a", HERE)
    workers.ended("a", failed=True)
    assert not workers.cannot_start
    workers.ended("b", failed=True)
    assert workers.cannot_start
    assert workers.free() is None


def test_an_idle_trial_ends_for_an_assignment_that_waits_for_its_worker() -> None:
    """Tune may not have given it the worker that was free, and would start another one."""
    workers, clock = pool(4)
    for name in "ij":
        workers.ask(name)
        workers.keep(name, HERE)

    def ends(*waiting: str) -> bool:
        return workers.ends_with("i", busy=2, ready=0, wanted=4, without_worker=waiting)

    assert not ends("a", "b"), "it is about to get one"
    clock.seconds += WORKER_SECONDS + 0.1
    assert ends("a", "b")
    assert ends("a", "b"), "one for each"
    assert not ends("a", "b")
    clock.seconds += WORKER_SECONDS + 0.1
    assert ends("b"), "somebody else took it"
    assert not ends()
    assert not ends("b"), "it waits again, from now on"


counts = st.integers(0, 40)


@given(
    now=counts,
    more=counts,
    cap=st.none() | st.integers(1, 40),
    busy=counts,
    ready=counts,
    blocked=counts,
    quiet=st.booleans(),
)
def test_there_are_never_more_workers_than_room_and_never_fewer_than_trials_that_may_start(
    now: int, more: int, cap: int | None, busy: int, ready: int, blocked: int, quiet: bool
) -> None:
    capacity = Capacity(now, now + more).up_to(cap)
    clock = Clock()
    workers = Pool(capacity, clock)
    clock.seconds += LIVELY_SECONDS * quiet
    wanted = workers.wanted(busy, ready, ready + blocked)
    assert wanted <= capacity.most
    assert wanted >= min(busy + ready, capacity.most)
    assert wanted <= max(busy + ready, capacity.now)
    if quiet:
        assert wanted <= busy + ready
