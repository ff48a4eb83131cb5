"""A study: everything one sweep needs to know. Loads neither Ray nor torch."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field, JsonValue, field_validator

from sweeps.search import comparison_proposer as comparing
from sweeps.search.base import Changes, Proposal
from sweeps.search.comparison import Comparison
from sweeps.search.designs import Grid
from sweeps.search.expand import proposals
from sweeps.search.kinds import SearchConfig
from sweeps.tracking.config import TrackingSettings
from ubt.common.choice import CA_FLOOR
from ubt.config import Config, set_path, validate
from ubt.config.dotted_paths import JsonObject
from ubt.defenses import DefenseConfig
from ubt.defenses.ubt import Ubt
from ubt.trials.config import TrialConfig, VictimConfig
from ubt.trials.metrics import Metrics


class Objectives(Config):
    """What is looked for: low ASR and high CA, both on the validation split."""

    ca_floor: float = Field(default=CA_FLOOR, ge=0, le=1)
    """Clean accuracy that the chosen configuration may lose against the poisoned model."""


class Resources(Config):
    """What one trial takes, and how many run at a time."""

    concurrent_trials: int | None = Field(default=None, ge=1)
    """Trials at a time; as many as the CPUs and GPUs allow if not given, on a cluster that may grow at least eight."""
    cpus_per_trial: int = Field(default=1, ge=1)
    """CPUs, and so CPU threads, of one trial."""
    gpus_per_trial: float = Field(default=0, ge=0)
    """GPUs of one trial; a fraction must be 1/n, e.g. 0.5 (other fractions can hang Ray)."""
    retries: int = Field(default=2, ge=0)
    """How often a trial is started again after its worker or node died."""

    @field_validator("gpus_per_trial")
    @classmethod
    def _shareable(cls, gpus: float) -> float:
        if 0 < gpus < 1 and abs(round(1 / gpus) - 1 / gpus) > 1e-9:
            raise ValueError("a fraction of a GPU must be 1/n (0.5, 0.25, …)")
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("more than one GPU must be a whole number")
        return gpus


class StudyConfig(Config):
    """One sweep."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the study and of its run folder: letters, digits, `.`, `_`, `-`."""
    victim: VictimConfig = VictimConfig()
    """The backdoored model: where its parts come from."""
    defense: DefenseConfig = Ubt()
    """The base configuration of the defense."""
    metrics: Metrics = ()
    """What is measured of every defended model beside ASR and CA, each by name or with its settings."""
    search: SearchConfig = Grid()
    """Which configurations are tried."""
    objectives: Objectives = Objectives()
    """Which of them is chosen."""
    resources: Resources = Resources()
    """What a trial takes, and how many run at a time."""
    tracking: TrackingSettings = TrackingSettings()
    """Where MLflow keeps its copy."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Every configuration is run once with each; what is told to the search is the mean."""
    store: str | None = None
    """Where artifacts are kept: a folder or a URL such as s3://bucket/ubt. Default: $UBT_STORE, else $UBT_CACHE,
    else ~/.cache/ubt."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("seeds must be distinct and not negative")
        return seeds

    @cached_property
    def base(self) -> JsonObject:
        """Return what the search's paths lead into, as plain values: victim and defense, not what is measured."""
        return {"victim": self.settled_victim.as_json(), "defense": self.defense.as_json()}

    @cached_property
    def settled_victim(self) -> VictimConfig:
        """Return the victim with a precision that says what it stands for, so that keys know of it."""
        return self._settled(self.victim)

    def with_parts(self, **parts: object) -> StudyConfig:
        """Return the study with other parts; nothing worked out from the old ones is kept: `model_copy` would."""
        return StudyConfig.model_validate({name: getattr(self, name) for name in type(self).model_fields} | parts)

    def trial(self, changes: dict[str, JsonValue]) -> TrialConfig:
        """Return the base with changes, checked.

        Raises:
            UserError: naming each changed field that is not allowed.
        """
        tree: dict[str, Any] = {**self.base, "metrics": self.metrics}
        for path, value in changes.items():
            tree = set_path(tree, path, value)
        if tree["victim"] is self.base["victim"]:  # checked already, and the same object for all such trials
            tree = {**tree, "victim": self.settled_victim}
        trial = validate(TrialConfig, tree, f"study {self.name}")
        settled = self._settled(trial.victim)
        return trial if settled is trial.victim else trial.model_copy(update={"victim": settled})

    def _settled(self, victim: VictimConfig) -> VictimConfig:
        if victim.model.precision != "auto" or not self.resources.gpus_per_trial:
            return victim
        model = victim.model.model_copy(update={"precision": "bfloat16"})
        return victim.model_copy(update={"model": model})

    def layout(self) -> list[Changes]:
        """Return the design's configurations in order and without repeats, each as what differs from the base.

        Raises:
            NotImplementedError: for an adaptive search, which lays nothing out.
            ValueError: if the space cannot be laid out.
        """
        return [proposal.changes for proposal in self.proposals()]

    def proposals(self) -> list[Proposal]:
        """Return the same with their numbers and labels; of a comparison, the table as if nothing were searched.

        Raises:
            NotImplementedError: for an adaptive search, which lays nothing out.
            ValueError: if the space cannot be laid out.
        """
        return list(self.laid_out)

    @cached_property
    def laid_out(self) -> tuple[Proposal, ...]:
        """Return `proposals`, laid out once: ten thousand configurations are asked for by checks, plan and planner.

        Raises:
            NotImplementedError: for an adaptive search, which lays nothing out.
            ValueError: if the space cannot be laid out.
        """
        if isinstance(self.search, Comparison):
            return tuple(comparing.laid_out(self.search))
        return tuple(proposals(self.search, self.base))

    def replicates(self, proposal: Proposal) -> int:
        """Return with how many seeds a proposal runs."""
        return proposal.replicates or len(self.seeds)
