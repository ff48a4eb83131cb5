"""Whether a node is fit for the trials of a sweep: what is expected of it against what it says of itself. Pure.

A trial that runs with another torch, other code or other data gives other results under the same key, so what decides
results has to be the same as where the sweep was started.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sweeps.backends.node_facts import Facts, code_of, python_version, versions
from ubt.common.errors import UnfitNode
from ubt.common.formatting import size
from ubt.trials.assignment import Assignment
from ubt.trials.record import Attempt, State, TrialRecord

DISTRIBUTIONS = ("ubt-sweeper", "torch", "open_clip_torch", "numpy")
MODULES = ("numpy", "torch", "open_clip", "ubt.engine.runner", "sweeps.backends.trainable")
CODE = ("ubt", "sweeps")

CLOCK_SECONDS = 10.0
"""How far a node's clock may be off before it is told: times in records and in the report come from it."""


@dataclass(frozen=True)
class Finding:
    """What is wrong on a node, and what to do about it."""

    what: str
    advice: str
    unfit: bool = True
    """No trial may run there; otherwise it is told, and that is all."""


@dataclass(frozen=True)
class Expected:
    """What every node has to be like: as it is where the sweep was started. Plain values, which travel to the nodes."""

    store: str
    plugins: tuple[str, ...] = ()
    trials: tuple[dict[str, Any], ...] = ()
    """Assignments of trials that read all data, files and plug-ins between them."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Files of decoded images that a node needs on a disk of its own, with their sizes in bytes."""
    gpus: bool = False
    """Trials are given GPUs."""
    python: str = field(default_factory=python_version)
    versions: Mapping[str, str] = field(default_factory=lambda: versions(DISTRIBUTIONS))
    modules: tuple[str, ...] = MODULES
    code: Mapping[str, str] = field(default_factory=lambda: code_of(CODE))
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Name of the note that the sweep leaves in the store."""

    def asked(self, answer: str = "") -> dict[str, Any]:
        """Return what a node is asked; it leaves `answer` in the store, if that is not empty."""
        return {**asdict(self), "answer": answer}


def judge(expected: Expected, facts: Facts, gpus: float = 0) -> Finding | None:
    """Return why a node is not fit for trials; None if it is. `gpus` are those that Ray says it has."""
    return _environment(expected, facts) or _surroundings(expected, facts, gpus) or _content(expected, facts)


def _environment(expected: Expected, facts: Facts) -> Finding | None:
    there = f"in {facts['executable']}"
    if facts["python"] != expected.python:
        what = f"Python {facts['python']} {there}, and {expected.python} where the sweep was started"
        return Finding(what, "start Ray there with the same Python")
    if others := {name: have for name, have in facts["versions"].items() if have != expected.versions[name]}:
        found = [f"{name} {have or 'is missing'} (here {expected.versions[name]})" for name, have in others.items()]
        return Finding(f"{', '.join(found)} {there}", "install the same versions: requirements.lock pins them all")
    if facts.get("imports"):
        module, error = facts["imports"]
        return Finding(
            f"`{module}` cannot be imported {there}: {error}", "install it anew there, from requirements.lock"
        )
    if "failed" in facts:
        part, error = facts["failed"]
        return Finding(f"{_PARTS[part][0]}: {error}", _PARTS[part][1])
    if changed := sorted(name for name, digest in facts["code"].items() if digest != expected.code[name]):
        what = f"the code of {' and '.join(changed)} differs from that here, under the same version"
        return Finding(what, "install the same commit on every node")
    return None


_PARTS = {
    "code": ("its code cannot be read", "install the package anew there"),
    "plugins": ("plug-ins cannot be imported", "install them on every node, or have their files at the same path"),
    "store": ("the store cannot be used", "every node must reach the store and may write to it"),
    "gpus": ("its GPUs cannot be looked at", "does `nvidia-smi` work there?"),
    "driver": ("its NVIDIA driver cannot be looked at", "does `nvidia-smi` work there?"),
    "disk": ("decoded images cannot be kept", "name another folder with $UBT_CACHE there"),
    "content": (
        "a trial cannot be prepared",
        "every node needs the same plug-ins, data and weights",
    ),
}
"""Part of the facts → what it means that it could not be had, and what to do."""


def _surroundings(expected: Expected, facts: Facts, gpus: float) -> Finding | None:
    if not facts["store"]:
        return not_shared(expected.store)
    if facts["gpus"] is not None and facts["gpus"] < gpus:
        why = f": {facts['driver']}" if facts.get("driver") and not facts["gpus"] else ""
        what = f"Ray says that it has {gpus:g} GPUs, and torch sees {facts['gpus']}{why}"
        return Finding(what, "is torch built for GPUs there, and the driver new enough for it? See `nvidia-smi`")
    disk = facts["disk"]
    if disk["needed"] > disk["free"]:
        what = f"decoded images take {size(disk['needed'])} in {disk['folder']}, and {size(disk['free'])} are free"
        return Finding(what, "free some space there, or name another folder with $UBT_CACHE")
    return None


def not_shared(store: str) -> Finding:
    """Return what is wrong where a node sees another store."""
    what = f"the store {store} is another one there: what one writes the other does not see"
    return Finding(what, "give a folder that all nodes share (NFS), or S3, with `store:` or $UBT_STORE")


def _content(expected: Expected, facts: Facts) -> Finding | None:
    if not facts["content"]:
        return None
    advice = "copy it anew to that node, or have it on a folder that all nodes share"
    return Finding(f"it has other content than the study: {facts['content']}", advice)


def clock(seconds: float) -> Finding | None:
    """Return what is to be told of a clock that is so many seconds ahead; None if it is well."""
    if abs(seconds) < CLOCK_SECONDS:
        return None
    what = f"its clock is {abs(seconds):.0f} s {'ahead' if seconds > 0 else 'behind'}: times in records are off"
    return Finding(what, "set it by NTP", unfit=False)


def unanswered(cause: str) -> Finding:
    """Return what is wrong with a node whose check did not come to its end."""
    return Finding(f"its check failed: {cause}", "look at Ray's logs there; `ray status` says which nodes are up")


def unfit_record(assignment: Assignment, finding: Finding, node: str) -> TrialRecord:
    """Return the record of a trial that a worker hands back: nothing of it has run."""
    record = assignment.record(State.FAILED, f"node {node} is not fit for trials: {finding.what}")
    attempt = Attempt(started_at=datetime.now(UTC).isoformat(timespec="milliseconds"), node=node)
    return record.model_copy(update={"fault": UnfitNode.__name__, "lost": True, "attempts": (attempt,)})


def rows(findings: Iterable[tuple[str, Finding]]) -> list[tuple[str, str, str]]:
    """Return the table of findings: node, what, what to do. Each line of a text is joined: a table has one for each."""
    return [(node, " ".join(found.what.split()), found.advice) for node, found in findings]
