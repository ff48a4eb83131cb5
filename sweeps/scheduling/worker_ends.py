"""Why a worker ended, read from what Ray says of it: killed, out of memory, its node lost, or unable to start.

Knows nothing of Ray but its sentences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sweeps.scheduling.retries import NODE_DIED, WORKER_DIED, WORKER_OUT_OF_MEMORY

_CREATION_FAILED = "because of an error raised in its creation task"
_OUT_OF_MEMORY = re.compile(r"low on memory|killing policy|memory pressure", re.IGNORECASE)
_NODE_LOST = re.compile(r"its node has died|node it was (?:on|running)|NodeDiedError|marked dead")
_UNSCHEDULABLE = re.compile(r"not schedulable|[Uu]nschedulable")
_PASSING = re.compile(r"(?:\w+\.)*(?:MemoryError|OSError|TimeoutError|ConnectionError|BlockingIOError)\b")
_DIED = "The actor died"
_ADVICE_BEGINS = "Some common causes include"
_IP = re.compile(r"\bip[=:]\s*(?P<ip>[0-9a-fA-F.:]*[0-9a-fA-F])")
_ACTOR = re.compile(r"\bactor_id[=:]\s*(?P<id>[0-9a-f]+)")
_ERROR = re.compile(r"^(?P<error>[A-Za-z_][\w.]*(?:Error|Exception|Exit)\b.*)$", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class WorkerEnd:
    """Why a worker ended."""

    fault: str = WORKER_DIED
    what: str = "the worker process was killed or crashed"
    ip: str = ""
    """Address of its node; empty if Ray does not say."""
    actor_id: str = ""
    """Ray's id of the actor that it was."""
    cannot_start: bool = False
    """Its process could not make what runs trials, for it cannot import something, say: no worker of its node can."""


def end_of_worker(text: str) -> WorkerEnd:
    """Return what the text of an error of Ray's says of the end of a worker."""
    text = _COLOUR.sub("", text)
    ip, actor = _IP.search(text), _ACTOR.search(text)
    end = WorkerEnd(ip=ip["ip"] if ip else "", actor_id=actor["id"] if actor else "")
    told = text.partition(_ADVICE_BEGINS)[0]  # which lists causes that it does not know to be one
    causes = [found["error"] for found in _ERROR.finditer(text)]
    if _CREATION_FAILED in text and causes:
        return replace(end, what=f"workers cannot start: {causes[-1]}", cannot_start=not _PASSING.match(causes[-1]))
    if _OUT_OF_MEMORY.search(told):
        return replace(end, fault=WORKER_OUT_OF_MEMORY, what="Ray ended the worker process: its node ran out of memory")
    if _NODE_LOST.search(told):
        return replace(end, fault=NODE_DIED, what="its node was lost")
    if _UNSCHEDULABLE.search(told):
        return replace(end, fault=NODE_DIED, what=f"Ray has no place for its worker: {told.strip().splitlines()[-1]}")
    if causes and _DIED not in text:
        return replace(end, what=f"the worker failed: {causes[-1]}")
    return end
