from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweeps.planning.wall import Task, path_seconds, wall_seconds


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Task]:
    """Draw tasks, each of which may need any of those before it."""
    tasks: dict[str, Task] = {}
    for number in range(draw(st.integers(1, 12))):
        needs = draw(st.lists(st.sampled_from(sorted(tasks)), unique=True, max_size=3)) if tasks else []
        tasks[f"t{number:02d}"] = Task(draw(st.integers(0, 9)), tuple(needs))
    return tasks


@given(graphs(), st.integers(1, 5))
def test_the_wall_time_lies_between_its_bounds(tasks: dict[str, Task], workers: int) -> None:
    work, longest = sum(task.seconds for task in tasks.values()), max(path_seconds(tasks).values())
    wall = wall_seconds(tasks, workers)
    assert max(work / workers, longest) <= wall + 1e-9
    assert wall <= (work - longest) / workers + longest + 1e-9, "no list schedule is longer (Graham, 1969)"


@given(graphs())
def test_one_worker_does_all_in_turn_and_many_the_longest_chain(tasks: dict[str, Task]) -> None:
    assert wall_seconds(tasks, 1) == sum(task.seconds for task in tasks.values())
    assert wall_seconds(tasks, len(tasks)) == max(path_seconds(tasks).values())


def test_a_victim_that_all_wait_for_keeps_the_others_idle() -> None:
    tasks = {"victim": Task(100)} | {f"trial{number}": Task(10, ("victim",)) for number in range(4)}
    assert [wall_seconds(tasks, workers) for workers in (1, 2, 4, 8)] == [140, 120, 110, 110]


def test_what_is_done_already_is_waited_for_by_none() -> None:
    assert wall_seconds({"late": Task(3, ("done before",))}, 2) == 3


def test_nothing_takes_no_time() -> None:
    assert wall_seconds({}, 3) == 0
