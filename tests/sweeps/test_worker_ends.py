"""What Ray 2.60 says of the ends of workers, word for word but for shortened paths, and what is made of it."""

from __future__ import annotations

import pytest

from sweeps.scheduling.worker_ends import WorkerEnd, end_of_worker

CREATION = """Failure # 1 (occurred at 2026-11-26_00-41-03)
The actor died because of an error raised in its creation task, \x1b[36mray::T.__init__()\x1b[39m (pid=19800, \
ip=192.0.2.2, actor_id=c5f4d7756d6f2ed595ea589d01000000, repr=<onlyhere.TemporaryActor object at 0x7fb2d2b0d990>)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
RuntimeError: The actor with name T failed to import on the worker. This may be because needed library dependencies \
are not installed in the worker environment:
                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^
{cause}
"""
DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: S
\tactor_id: c47ed9eea1db0e0e659dc1c201000000
\tpid: 21395
\tip: 192.0.2.2
The actor {why}"""
EXIT = (
    "is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker"
    " unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was"
    " killed by the OOM killer due to high memory usage, (2) ray stop --force was called"
)
MEMORY = """(raylet) 1 worker(s) were killed due to the node running low on memory.
Ray killed 1 worker(s) based on the killing policy
Refer to the documentation on how to address the out of memory issue"""
TASK = """\x1b[36mray::UbtTrainable.train()\x1b[39m (pid=7, ip=10.0.0.3, actor_id=ab01, repr=<UbtTrainable>)
  File "trainable.py", line 50, in step
ZeroDivisionError: division by zero"""


@pytest.mark.parametrize(
    "cause",
    [
        "ModuleNotFoundError: No module named 'ubt'",
        "importlib.metadata.PackageNotFoundError: No package metadata was found for ubt-sweeper",
        "ray.exceptions.RaySystemError: System error: No module named 'plugin'",
        "ImportError: cannot import name 'Gone' from 'ubt'",
    ],
)
def test_a_worker_that_cannot_import_says_where_and_what(cause: str) -> None:
    end = end_of_worker(CREATION.format(cause=cause))
    assert end == WorkerEnd(
        "WorkerDied", f"workers cannot start: {cause}", "192.0.2.2", "c5f4d7756d6f2ed595ea589d01000000", True
    )


@pytest.mark.parametrize(
    "cause", ["OSError: [Errno 28] No space left on device", "MemoryError: ", "builtins.OSError: x"]
)
def test_a_worker_that_lacks_room_while_it_starts_may_start_another_time(cause: str) -> None:
    assert not end_of_worker(CREATION.format(cause=cause)).cannot_start


@pytest.mark.parametrize(
    ("text", "fault", "what"),
    [
        (DIED.format(why=EXIT), "WorkerDied", "the worker process was killed or crashed"),
        (DIED.format(why="died because its node has died. Node Id: 77"), "NodeDied", "its node was lost"),
        (MEMORY, "WorkerOutOfMemory", "Ray ended the worker process: its node ran out of memory"),
        (TASK, "WorkerDied", "the worker failed: ZeroDivisionError: division by zero"),
        ("", "WorkerDied", "the worker process was killed or crashed"),
    ],
    ids=["killed", "node", "memory", "task", "nothing"],
)
def test_the_end_of_a_worker_is_told_for_what_it_is(text: str, fault: str, what: str) -> None:
    end = end_of_worker(text)
    assert (end.fault, end.what, end.cannot_start) == (fault, what, False)
