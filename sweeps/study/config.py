"""A study: everything one sweep needs to know. Loads neither Ray nor torch."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, Self

from pydantic import ByteSize, Field, JsonValue, field_validator, model_validator

from sweeps.search.base import Search, SearchConfig
from sweeps.search.designs import Grid
from sweeps.search.proposals import Changes, Proposal
from sweeps.tracking.config import TrackingSettings
from ubt.common.choice import CA_FLOOR, EpochsCounted, RuleName
from ubt.config import Config, set_path, validate
from ubt.config.base import kind_of
from ubt.config.dotted_paths import JsonObject
from ubt.defenses import DefenseConfig
from ubt.defenses.ubt import Ubt
from ubt.trials.config import TrialConfig, VictimConfig
from ubt.trials.gates import Gates
from ubt.trials.judging import Judging
from ubt.trials.metrics import Metrics

MOST_SEEDS = 100
"""More seeds than a race may have."""


class Objectives(Config):
    """What is looked for: low ASR and high CA, both on the validation split."""

    ca_floor: float = Field(default=CA_FLOOR, ge=0, le=1)
    """Clean accuracy that the chosen configuration may lose against the poisoned model."""
    rule: RuleName = "lowest_asr"
    """Choose the lowest ASR, which takes the trigger to measure it, or (`trigger_free`) as a defender would who has
    none: the least loss of CA and of similarity of held pairs, where selected pairs are no longer alike. An adaptive
    search then sees that similarity in place of ASR. Only for defenses that select pairs: `ubt` and `abl`."""
    epochs: EpochsCounted = "every"
    """Whether a configuration may be chosen after `every` epoch at which its model was judged, or only after its
    `last`. An earlier epoch on the front, or chosen, is run as a trial that ends there, which measures its test rates.
    Comparisons and ablations look at the last one in any case."""


class Resources(Config):
    """What one trial takes, and how many run at a time."""

    concurrent_trials: int | None = Field(default=None, ge=1)
    """Most trials at a time; as many as the CPUs and GPUs allow if not given, also of nodes that join while it runs."""
    cpus_per_trial: int = Field(default=1, ge=1)
    """CPUs, and so CPU threads, of one trial."""
    gpus_per_trial: float = Field(default=0, ge=0)
    """GPUs of one trial: 1, or a fraction 1/n, e.g. 0.5 for two trials on each (other fractions can hang Ray)."""
    retries: int = Field(default=2, ge=0)
    """How often a trial is run again after a fault of one kind: its worker or node died, memory ran out, it stalled."""

    stall_minutes: float | None = Field(default=None, gt=0)
    """After so long without progress a stage is ended, and its trial run once more. If not given, half an hour, or five
    times the longest that the stage has taken in this run, whichever is more."""

    save_minutes: float = Field(default=5, ge=0)
    """A stage that trains saves in the store what continuing it needs, after an epoch, if it has not for so long: a
    trial that is ended then goes on from there."""

    @field_validator("gpus_per_trial")
    @classmethod
    def _shareable(cls, gpus: float) -> float:
        if 0 < gpus < 1 and abs(round(1 / gpus) - 1 / gpus) > 1e-9:
            raise ValueError("a fraction of a GPU must be 1/n (0.5, 0.25, …)")
        if gpus > 1:
            raise ValueError(
                "a trial computes on one GPU, and the others would stand idle; give 1, or 1/n to share one"
            )
        return gpus


class Race(Config):
    """Seeds that only configurations get that compete; written `seeds: {min: 2, max: 5, race: front}`."""

    min: int = Field(default=2, ge=2)
    """Seeds that every configuration is run with; the search learns from their mean."""
    by: Literal["front", "choice"] = "front"
    """What they compete for: to be the one that is chosen, or that and a place on the front."""


_ENDS_ALONE = frozenset({"comparison", "leave_one_out", "ofat", "pairs"})
"""Designs that ask how configurations differ, each at its last epoch."""


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
    judging: Judging = Judging()
    """Which epochs' models are judged on validation, and on how many images; by default all, on all."""
    search: SearchConfig = Grid()
    """Which configurations are tried."""
    gates: Gates = Gates()
    """What is asked of the stages' results before a trial goes on; no result depends on it."""
    objectives: Objectives = Objectives()
    """Which of them is chosen."""
    resources: Resources = Resources()
    """What a trial takes, and how many run at a time."""
    tracking: TrackingSettings = TrackingSettings()
    """Where MLflow keeps its copy."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Every configuration is run once with each; the search learns from the mean."""
    race: Race | None = None
    """Which of the seeds every configuration is run with, and for what it gets the others. Without it, all with all."""
    plugins: tuple[str, ...] = ()
    """Modules with attacks, defenses, detectors, data sources, designs or metrics of your own: importable names, or
    `.py` files. They are imported before the study is checked, and on every worker."""
    store: str | None = None
    """Where artifacts are kept: a folder or a URL such as s3://bucket/ubt. Default: $UBT_STORE, else $UBT_CACHE,
    else ~/.cache/ubt."""

    store_budget: ByteSize | None = Field(default=None, gt=0)
    """How much the artifacts in the store may take, such as `200GB`: while the sweep runs, those go that neither a
    trial that is left nor the front needs, first the one that was used longest ago. Without it, none goes."""

    @model_validator(mode="before")
    @classmethod
    def _raced(cls, given: object) -> object:
        """Take `seeds: {min, max, race}` for what it stands for: the seeds from 0 to max − 1, and a race."""
        seeds = given.get("seeds") if isinstance(given, dict) else None
        if not isinstance(given, dict) or not isinstance(seeds, dict):
            return given
        most, least = seeds.get("max"), seeds.get("min", 2)
        if seeds.keys() - {"min", "max", "race"} or type(most) is not int or type(least) is not int:
            raise ValueError("seeds: give a list of seeds, or {min: 2, max: 5, race: front}")
        if not 2 <= least < most <= MOST_SEEDS:
            raise ValueError(f"seeds: `min` must be at least 2 and less than `max`, and that at most {MOST_SEEDS}")
        return {**given, "seeds": list(range(most)), "race": {"min": least, "by": seeds.get("race", "front")}}

    @model_validator(mode="after")
    def _race_fits(self) -> Self:
        """Refuse a race where what is asked of the study is asked of all seeds, or there is nothing to compete by."""
        if self.race is None:
            return self
        reason = ""
        if self.race.min >= len(self.seeds):
            reason = f"`min` is {self.race.min}, and with {len(self.seeds)} seeds none is left to race for"
        elif any(one.needs_whole_trials for one in (self.search, *self.search.children)):
            reason = "comparisons and ablations are of all seeds: give a list of them"
        elif self.search.stopping:
            reason = "a trial that is stopped early does not compare with one that is not: leave `search.stopping` out"
        elif self.objectives.rule != "lowest_asr" or self.victim.attack is None:
            reason = "configurations compete by ASR and CA: it takes an attack, and `objectives.rule: lowest_asr`"
        if reason:
            raise ValueError(f"race: {reason}")
        return self

    @model_validator(mode="after")
    def _stopped_by_what_is_judged(self) -> Self:
        if self.search.stopping and self.judging.epochs != "all":
            advice = "say `judging.epochs: all`; with `judging.images` it costs little"
            raise ValueError(f"judging.epochs: `search.stopping` goes by every epoch, and not all are judged: {advice}")
        return self

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

    def with_search(self, search: Search) -> StudyConfig:
        """Return the study with another search; itself if it is the same one."""
        return self if search is self.search else self.with_parts(search=search)

    def trial(self, changes: dict[str, JsonValue]) -> TrialConfig:
        """Return the base with changes, checked.

        Raises:
            UserError: naming each changed field that is not allowed.
        """
        asked = tuple((path, repr(value)) for path, value in changes.items())
        if asked not in self._trials:
            self._trials[asked] = self._trial(changes)
        return self._trials[asked]

    @cached_property
    def _trials(self) -> dict[tuple[tuple[str, str], ...], TrialConfig]:
        """What was asked for so far: checks, plan, preflight and planner ask for the same, ten thousand of them."""
        return {}

    def _trial(self, changes: dict[str, JsonValue]) -> TrialConfig:
        tree: dict[str, Any] = {**self.base, "metrics": self.metrics, "judging": self.judging}
        for path, value in changes.items():
            tree = set_path(tree, path, value, TrialConfig)
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

    @property
    def ca_floor(self) -> float:
        """Return the clean accuracy, as a fraction, that a configuration may lose."""
        return self.objectives.ca_floor

    @property
    def rule(self) -> RuleName:
        """Return the rule by which a configuration is chosen."""
        return self.objectives.rule

    @property
    def every_epoch(self) -> bool:
        """Tell whether earlier epochs on the front, or chosen, become trials of their own."""
        return self.objectives.epochs == "every" and kind_of(type(self.search), "design") not in _ENDS_ALONE

    def layout(self) -> list[Changes]:
        """Return the configurations of `proposals`, each as what differs from the base.

        Raises:
            ValueError: as there.
        """
        return [proposal.changes for proposal in self.proposals()]

    def proposals(self) -> tuple[Proposal, ...]:
        """Return the configurations known beforehand, in order and without repeats.

        All of a design; of a comparison its searches, and the table as if nothing were searched; of an adaptive search
        the first.

        Raises:
            ValueError: if the space does not allow the design.
        """
        return self._proposals

    @cached_property
    def _proposals(self) -> tuple[Proposal, ...]:
        """Worked out once: ten thousand configurations are asked for by checks, plan and planner."""
        return tuple(self.search.expand(self.base))

    @property
    def trials(self) -> int:
        """Return how many trials there will be at most, each a configuration with one seed."""
        trials = sum(map(self.replicates, self.proposals())) + self.search.chosen_later * len(self.seeds)
        return min(trials, self.search.budget.trials or trials) if self.search.budget else trials

    @property
    def least_trials(self) -> int:
        """Return how many trials there will be at least: fewer, if seeds are raced, than there may be."""
        return self.trials * self.race.min // len(self.seeds) if self.race else self.trials

    @property
    def gpus(self) -> float:
        """Return the GPUs of one trial."""
        return self.resources.gpus_per_trial

    def replicates(self, proposal: Proposal) -> int:
        """Return with how many seeds a proposal runs."""
        return proposal.replicates or len(self.seeds)
