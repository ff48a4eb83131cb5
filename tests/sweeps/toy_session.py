"""A session's surroundings in memory: a proposer that is told what to propose, a planner without data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.planning.trials import PlannedTrial, trial_name
from sweeps.scheduling.elsewhere import Elsewhere
from sweeps.scheduling.outcomes import Listener
from sweeps.scheduling.session import Session
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.search.proposals import Changes, Outcome, Proposal
from ubt.config import set_path
from ubt.engine.graph import build_pipeline
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.gates import Gates
from ubt.trials.rates import Rates
from ubt.trials.record import StageRecord, State, TrialRecord

DEFAULT_GATES = Gates()


def rates(asr: float = 0.1, ca: float = 0.8) -> Rates:
    intervals = {"ca_low": 0.0, "ca_high": 1.0, "asr_low": 0.0, "asr_high": 1.0}
    return Rates(ca=ca, asr=asr, ca_images=100, asr_images=90, triggered_accuracy=0.5, **intervals)


@dataclass
class ToyProposer:
    """Proposes a list; proposal i only after the outcome of proposal i − `lag` if there is a lag."""

    layout: Sequence[Changes]
    lag: int | None = None
    told: list[tuple[int, Outcome]] = field(default_factory=list)
    proposed: int = 0
    finished: int = 0

    @property
    def exhausted(self) -> bool:
        return self.proposed == len(self.layout)

    def propose(self) -> Proposal | None:
        behind = {number for number, _ in self.told}
        if self.exhausted or (self.lag and self.proposed >= self.lag and self.proposed - self.lag not in behind):
            return None
        self.proposed += 1
        return Proposal(self.proposed - 1, self.layout[self.proposed - 1])

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        self.told.append((proposal.number, outcome))

    def finish(self) -> None:
        self.finished += 1


@dataclass
class ToyPlanner:
    """Plans real pipelines over data that does not exist."""

    replicates: int = 1
    keep_epochs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    gates: Gates = DEFAULT_GATES
    store: str = "nowhere"

    def __call__(self, proposal: Proposal, position: int) -> PlannedTrial:
        tree = TrialConfig().as_json()
        for path, value in proposal.changes.items():
            tree = set_path(tree, path, value)
        trial = TrialConfig.model_validate(tree)
        assignment = Assignment(
            study="toy",
            trial=trial_name(proposal, position, self.replicates),
            number=proposal.number * self.replicates + position,
            seed=position,
            config=trial.as_json(),
            changes=proposal.changes,
            data_key="toy-data",
            store=self.store,
            keep_epochs=self.keep_epochs,
            gates=self.gates,
        )
        return PlannedTrial(assignment, build_pipeline(trial, position, "toy-data"))


@dataclass
class Toy:
    """A session and everything around it."""

    session: Session
    proposer: ToyProposer
    planner: ToyPlanner
    records: Path

    def running(self, assignment: Assignment, *done: str) -> TrialRecord:
        """Return the record of a trial that has done the stages named, and no other."""
        return assignment.record(State.RUNNING).model_copy(update={"stages": self.stages(assignment, *done)})

    def done(self, assignment: Assignment, asr: float = 0.1, ca: float = 0.8) -> TrialRecord:
        record = assignment.record(State.DONE)
        return record.model_copy(update={"stages": self.stages(assignment), "val": rates(asr, ca)})

    def failed(self, assignment: Assignment, *done: str, fault: str = "StageFault") -> TrialRecord:
        record = assignment.record(State.FAILED, "it went wrong")
        return record.model_copy(update={"stages": self.stages(assignment, *done), "fault": fault})

    def stages(self, assignment: Assignment, *names: str) -> tuple[StageRecord, ...]:
        """Return the records of the stages up to the last one named; of all if none is."""
        trial = TrialConfig.model_validate(assignment.config)
        pipeline = build_pipeline(trial, assignment.seed, assignment.data_key)
        last = max((at for at, node in enumerate(pipeline) if node.spec.name in names), default=len(pipeline) - 1)
        return tuple(
            StageRecord(stage=node.spec.name, key=node.key, reused=False, seconds=1) for node in pipeline[: last + 1]
        )

    def start_all(self) -> list[Assignment]:
        """Start whatever may start now."""
        return list(iter(self.session.next_assignment, None))

    def finish_all(self) -> list[str]:
        """Run everything there is, one after the other, well; return the names in order."""
        names = []
        while (assignment := self.session.next_assignment()) is not None:
            names.append(assignment.trial)
            self.session.ended(assignment.trial, self.done(assignment))
        return names


def toy_session(
    folder: Path,
    layout: Sequence[Changes],
    replicates: int = 1,
    lag: int | None = None,
    known: Iterable[TrialRecord] = (),
    listeners: Sequence[Listener] = (),
    keep_epochs: dict[str, tuple[int, ...]] | None = None,
    gates: Gates = DEFAULT_GATES,
    elsewhere: Elsewhere | None = None,
) -> Toy:
    proposer, planner = ToyProposer(layout, lag), ToyPlanner(replicates, keep_epochs or {}, gates)
    records = folder / "records"
    session = Session(
        proposer, planner, replicates, StageScheduler(), records, list(known), listeners, elsewhere=elsewhere
    )
    return Toy(session, proposer, planner, records)
