"""A study: everything one sweep needs to know, read from one YAML file. Loads neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from pydantic import Field, JsonValue, field_validator

from sweeps.search.designs import Grid, SearchConfig
from sweeps.search.space import ends_of
from sweeps.tracking.config import TrackingSettings
from ubt.config import Config, parse_assignment, read_yaml, set_path, validate
from ubt.config.paths import JsonObject, get_path
from ubt.defenses import DefenseConfig
from ubt.defenses.ubt import Ubt
from ubt.errors import Problem, UserError
from ubt.models.names import check_model_name
from ubt.trial import TrialConfig
from ubt.victim import VictimConfig


class Objectives(Config):
    """What is looked for: low ASR and high CA, both on the validation split."""

    ca_floor: float = Field(default=0.02, ge=0, le=1)
    """Clean accuracy that the chosen configuration may lose against the poisoned model."""


class Resources(Config):
    """What one trial takes, and how many run at a time."""

    concurrent_trials: int | None = Field(default=None, ge=1)
    """Trials at a time; as many as the CPUs and GPUs allow if not given."""
    cpus_per_trial: int = Field(default=1, ge=1)
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
    defense: DefenseConfig = Ubt()
    search: SearchConfig = Grid()
    objectives: Objectives = Objectives()
    resources: Resources = Resources()
    tracking: TrackingSettings = TrackingSettings()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Every configuration is run once with each; what is told to the search is the mean."""
    store: str | None = None
    """Where artifacts are kept: a folder or a URL such as s3://bucket/ubt. Default: $UBT_STORE or ~/.cache/ubt."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("seeds must be distinct and not negative")
        return seeds

    @property
    def base(self) -> JsonObject:
        """Return the base configuration as plain values."""
        return {"victim": self.victim.as_json(), "defense": self.defense.as_json()}

    def trial(self, changes: dict[str, JsonValue]) -> TrialConfig:
        """Return the base with changes, checked.

        Raises:
            UserError: naming each changed field that is not allowed.
        """
        tree = self.base
        for path, value in changes.items():
            tree = set_path(tree, path, value)
        return validate(TrialConfig, tree, f"study {self.name}")


def builtin_studies() -> dict[str, Path]:
    """Return the studies that come with the package: name → file."""
    folder = Path(str(files("sweeps") / "studies"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_study(reference: str, assignments: Iterable[str] = (), name: str | None = None) -> StudyConfig:
    """Return a study by the name of a built-in one or the path of a YAML file, with `--set` values put in.

    Raises:
        UserError: with every mistake found.
    """
    path = builtin_studies().get(reference) or Path(reference)
    if not path.is_file():
        names = ", ".join(builtin_studies())
        raise UserError(Problem(reference, f"is neither a file nor a built-in study; built in: {names}"))
    tree = read_yaml(path)
    tree.setdefault("name", path.stem)
    for assignment in assignments:
        tree = set_path(tree, *parse_assignment(assignment))
    if name is not None:
        tree = set_path(tree, "name", name)
    study = validate(StudyConfig, tree, reference)
    check_study(study, reference)
    return study


def check_study(study: StudyConfig, source: str) -> None:
    """Check what single fields cannot: the model's name, the target, and every value of the search space.

    Raises:
        UserError: with every mistake found.
    """
    problems: list[Problem] = []
    for check in (lambda: check_model_name(study.victim.model), lambda: study.trial({}).check_target()):
        problems += _problems_of(check)
    for path, dimension in study.search.space.items():
        problems += _space_problems(study, path, ends_of(dimension), source)
    try:
        study.search.layout()
    except NotImplementedError:
        pass  # an adaptive search lays nothing out
    except ValueError as error:
        problems.append(Problem(f"{source}: search.space", str(error)))
    if problems:
        raise UserError(problems)


def _space_problems(study: StudyConfig, path: str, values: list[JsonValue], source: str) -> list[Problem]:
    where = f"{source}: search.space.{path}"
    try:
        get_path(study.base, path)
    except KeyError:
        advice = "paths begin with `victim.` or `defense.`; `ubt schema` lists the fields there are"
        return [Problem(where, "there is no such field to search", advice=advice)]
    return [
        Problem(where, problem.message, problem.given)
        for value in values
        for problem in _problems_of(lambda value=value: study.trial({path: value}))
    ]


def _problems_of(check: object) -> list[Problem]:
    try:
        check()  # type: ignore[operator]
    except UserError as error:
        return list(error.problems)
    return []
