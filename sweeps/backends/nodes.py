"""The nodes of a cluster: each is looked at before a trial runs there, and one that is not fit gets none: quarantine.

Quarantine is a label selector in what Ray is asked for a trial's worker: "on any node but these". So it binds this
sweep alone, takes no CPUs from others, works on a busy node, and is over when the sweep ends. What runs there may end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sweeps.backends.connection import TRIALS_WAITING, capacity
from sweeps.backends.fitness import Expected, Finding, clock, judge, not_shared, rows, unanswered
from sweeps.backends.node_facts import Facts, sees
from sweeps.study.config import Resources
from sweeps.workers.pool import Capacity
from ubt.artifacts.store import ArtifactStore, UnusableStore
from ubt.common.errors import Problem, UserError
from ubt.common.formatting import text_table
from ubt.common.progress import waiting_for

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""How long nodes may take to answer before it is said which do not, and the sweep begins without them if it can."""
STORE_SECONDS = 10.0
"""How long the store may stumble before what is asked of it here ends the sweep."""
LOOK_SECONDS, ASK_SECONDS = 2.0, 1.0
"""How often it is looked for nodes that join, and for answers of theirs."""


@dataclass(frozen=True)
class Node:
    """One node of a cluster that is up."""

    id: str
    """Ray's own, which is another one when the node comes back."""
    name: str
    """What it is called, in records too."""
    resources: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


class Cluster(Protocol):
    """What is asked of Ray here."""

    def nodes(self) -> list[Node]:
        """Return the nodes that are up."""

    def most_workers(self, resources: Resources) -> int | None:
        """Return how many workers fit on all nodes that may be added; None if that is not known."""

    def leaving(self) -> set[str]:
        """Return the ids of the nodes whose end has been announced: trials end there, and none begins."""

    def begin(self, node: Node, asked: dict[str, Any]) -> None:
        """Let a node look at itself, however busy it is."""

    def answers(self, seconds: float) -> Iterator[tuple[str, Facts | str]]:
        """Yield the id of each node that has answered, with its facts or why there are none; wait for one as long."""


class Nodes:
    """The nodes of the cluster that a sweep runs on."""

    def __init__(
        self,
        expected: Expected,
        resources: Resources,
        cluster: Cluster,
        seconds: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._expected, self._resources, self._cluster = expected, resources, cluster
        self._seconds, self._now = seconds, now
        self._store = ArtifactStore(expected.store, STORE_SECONDS)
        self._known: dict[str, Node] = {}
        self._most_workers = cluster.most_workers(resources)
        self._up: list[Node] = []
        """Those that could run a trial, when it was looked last."""
        self.leaving: set[str] = set()
        """Ids of nodes whose end has been announced; of those that have ended, too."""
        self._asked: dict[str, float] = {}
        """Nodes that have not answered, and since when."""
        self._held: set[str] = set()
        """Those of them that get no trials until they do."""
        self._well: set[str] = set()
        self.findings: dict[str, list[Finding]] = {}
        """What is wrong, by node."""
        self._looked = self._listened = 0.0
        self.changes = 0
        """Goes up when nodes are put into quarantine, or out of it."""

    def check(self) -> None:
        """Look at every node, before the first trial; say what is wrong with one.

        Raises:
            UserError: if the store cannot be written, or no node is fit.
        """
        with waiting_for("the nodes to look at themselves"):
            self.ask()
        self._tell(self.findings)
        self._check_left()

    def ask(self) -> None:
        """Have every node look at itself, and wait for the answers. To be closed.

        Raises:
            UserError: if the store cannot be written.
        """
        self._store.write_note(self._expected.token)
        self._look()
        begun = told = self._seconds()
        while self._asked:
            self._listen(ASK_SECONDS)
            if self._asked and self._seconds() - told > PATIENCE_SECONDS:
                told = self._seconds()
                names = ", ".join(str(self._known[node]) for node in self._asked)
                text = "no answer for %.0f s from %s: the first time a node reads the data, that can take long"
                logger.warning(text, told - begun, names)
                if self._well:
                    self._held.update(self._asked)
                    self.changes += 1
                    break

    def poll(self) -> None:
        """Look for nodes that have joined and for answers; called often, it does so every few seconds.

        Raises:
            UserError: if a node that joined is not fit, and there is no other.
        """
        now, before = self._seconds(), set(self.findings)
        if now - self._looked >= LOOK_SECONDS:
            self._look()
        if self._asked and now - self._listened >= ASK_SECONDS:
            self._listened = now
            self._listen(0)
        if new := self.findings.keys() - before:
            self._tell(new)
            self._check_left()

    def quarantine(self, node: str, reason: str, advice: str = "mend it, then restart Ray there") -> bool:
        """Start no more trials on a node, by Ray's id of it; it is said once. Return whether another node is left."""
        if node not in self._known:  # an unknown node cannot be kept out
            return False
        if node not in self.quarantined:
            self._found(node, Finding(reason, advice))
            self._tell([node])
        return bool(self.left)

    @property
    def quarantined(self) -> set[str]:
        """Return the ids of the nodes that get no trials, those that have not answered in time among them."""
        unfit = {node for node, found in self.findings.items() if any(finding.unfit for finding in found)}
        return unfit | self._held

    @property
    def closed(self) -> set[str]:
        """Return the ids of the nodes on which no trial begins."""
        return self.quarantined | self.leaving

    @property
    def capacity(self) -> Capacity:
        """Return how many workers fit, as it was looked last.

        As many again, and at least `TRIALS_WAITING`, are asked for beyond that: Ray queues what does not fit, and an
        autoscaler adds nodes for it. Not more than it may add, where that is known.
        """
        closed = self.closed
        now = capacity(self._resources, [node.resources for node in self._up if node.id not in closed])
        most = now + max(now, TRIALS_WAITING)
        if self._most_workers is not None:
            most = max(now, min(most, self._most_workers))
        return Capacity(now, most).up_to(self._resources.concurrent_trials)

    @property
    def left(self) -> list[Node]:
        """Return the nodes that are up, could run a trial, and are not in quarantine."""
        kept_off = self.quarantined
        return [node for node in self._fitting() if node.id not in kept_off]

    @property
    def selector(self) -> dict[str, str]:
        """Return Ray's label selector for workers; empty if every node may have them."""
        kept_off = sorted(self.closed)
        return {"ray.io/node-id": f"!in({','.join(kept_off)})"} if kept_off else {}

    def for_workers(self) -> dict[str, Any]:
        """Return what a worker is given to look at its node itself, should it start before the node's check is done.

        Not the trials: a worker checks what each of its own is made of.
        """
        return {"expected": replace(self._expected, trials=()), "well": sorted(self._well)}

    def close(self) -> None:
        """Take the sweep's note out of the store."""
        self._remove_note(self._expected.token)

    def _remove_note(self, note: str) -> None:
        with suppress(UnusableStore):  # one that is left behind is a stray
            self._store.remove_note(note)

    @property
    def count(self) -> int:
        """Return how many nodes have been looked at."""
        return len(self._known)

    def name(self, node: str) -> str:
        """Return what people call the node of an id."""
        return str(self._known.get(node, f"node {node[:8]}"))

    def table(self, nodes: Collection[str]) -> str:
        """Return what is wrong with some of the nodes, as a table with a line above it."""
        unfit = len(self.quarantined.intersection(nodes))
        listed = [(self.name(node), finding) for node in nodes for finding in self.findings[node]]
        said = f"{unfit} of {len(self._known)} nodes get no trials" if unfit else "not all is well with every node"
        return f"{said}:\n{text_table({'node': 'left', 'what is wrong': 'left', 'what to do': 'left'}, rows(listed))}"

    def problems(self) -> list[Problem]:
        """Return all that is wrong, as mistakes."""
        return [
            Problem(f"node {self.name(node)}", finding.what, advice=finding.advice)
            for node, found in self.findings.items()
            for finding in found
        ]

    def _fitting(self) -> list[Node]:
        return [node for node in self._cluster.nodes() if capacity(self._resources, [node.resources])]

    def _look(self) -> None:
        self._looked = self._seconds()
        self._up = self._fitting()
        self._announce(self._cluster.leaving() - self.leaving)
        for node in self._up:
            if node.id not in self._known:
                self._known[node.id] = node
                self._asked[node.id] = self._seconds()
                self._cluster.begin(node, self._expected.asked(self._answer(node.id)))

    def _announce(self, leaving: set[str]) -> None:
        for node in leaving:
            logger.warning("%s leaves the cluster: its trials go on elsewhere after their stage", self.name(node))
        self.leaving |= leaving
        self.changes += len(leaving)

    def _listen(self, seconds: float) -> None:
        for node, answer in self._cluster.answers(seconds):
            self._asked.pop(node)
            if node in self._held:
                self._held.remove(node)
                self.changes += 1
            try:
                self._take(node, answer)
            except UnusableStore:
                if not self._well:
                    raise
                del self._known[node]  # it joined while the store stumbled; what runs meets that too. It is asked anew

    def _take(self, node: str, answer: Facts | str) -> None:
        """Judge a node by its answer."""
        if isinstance(answer, str):
            self._found(node, unanswered(answer))
            return
        found = judge(self._expected, answer, self._known[node].resources.get("GPU", 0))
        if found is None and not sees(self._store, self._answer(node)):
            found = not_shared(self._expected.store)
        self._remove_note(self._answer(node))
        if found is None:
            self._well.add(node)
        for finding in (found, clock(answer["clock"] - self._now())):
            if finding:
                self._found(node, finding)

    def _found(self, node: str, finding: Finding) -> None:
        self.findings.setdefault(node, []).append(finding)
        if finding.unfit:
            self._well.discard(node)
            self.changes += 1

    def _answer(self, node: str) -> str:
        return f"{self._expected.token}-{node}"

    def _tell(self, nodes: Collection[str]) -> None:
        if nodes:
            logger.warning("%s", self.table(nodes))

    def _check_left(self) -> None:
        """Raise `UserError` if there are nodes, and none is fit or may turn out to be."""
        if self.quarantined and not self.left and not self._asked:
            raise UserError(self.problems())
