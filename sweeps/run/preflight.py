"""Before the first trial: every mistake is met, and the data decoded, while nothing runs yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from sweeps.search.space import samples_of
from sweeps.study.checks import problems_of
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import ArtifactStore, local_cache
from ubt.common.errors import Problem, UserError
from ubt.data.base import DataSource
from ubt.engine.given_poison import located
from ubt.models.settings import image_size_px
from ubt.trials.config import VictimConfig
from ubt.trials.poison import GivenPoison, Poison


def prepare(study: StudyConfig, store: str) -> None:
    """Meet every mistake before a worker starts: the store, the data (decoded here, once), triggers, weights.

    Raises:
        UserError: with everything that cannot be used.
    """
    ArtifactStore(store).check_writable()
    _check_writable(store)
    problems: list[Problem] = []
    victims = victims_of(study)
    poisons: dict[tuple[DataSource, int], list[Poison]] = {}
    for victim in victims:
        poisons.setdefault((victim.data, image_size_px(victim.model.name)), []).append(victim.poisoning)
    for (data, size_px), of_data in poisons.items():
        problems += problems_of(partial(_decode, data, size_px, store, of_data))
    for attack in {victim.attack: None for victim in victims}:
        problems += problems_of(attack.read) if attack else []
    with_weights = [v for v in victims if v.model.weights_file or v.model.fetched or v.implant.checkpoint]
    if with_weights:
        from ubt.models.build import check_weights  # noqa: PLC0415 — torch, 5 s, only where there are weights

        for model, poisoned in {(victim.model, victim.implant.checkpoint): None for victim in with_weights}:
            problems += problems_of(partial(check_weights, model, poisoned))
    if problems:
        raise UserError(problems)


def _check_writable(store: str) -> None:
    """Raise `UserError` if decoded images cannot be kept: for a store on S3 they lie on a disk of this machine."""
    with _images_of(store) as cache:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=cache):
            pass


def _decode(data: DataSource, size_px: int, store: str, poisons: Sequence[Poison]) -> None:
    with _images_of(store) as cache:
        loaded = data.load(size_px, cache)
    for poison in dict.fromkeys(poisons):
        if isinstance(poison, GivenPoison):
            located(poison, loaded.train)


@contextmanager
def _images_of(store: str) -> Iterator[Path]:
    """Yield the folder for decoded images; raise `UserError` if its disk turns out to be full or not writable."""
    cache = local_cache(store)
    try:
        yield cache
    except OSError as error:
        elsewhere = "$UBT_CACHE" if "://" in store else "`store:` in the study, or $UBT_STORE"
        advice = f"free some space (`ubt store du`, `ubt store prune`), or name another place with {elsewhere}"
        raise UserError(Problem(f"decoded images in {cache}", f"cannot be kept: {error}", advice=advice)) from error


def victims_of(study: StudyConfig) -> list[VictimConfig]:
    """Return the victims that trials have; where results decide configurations, those with one searched value each."""
    layout = study.layout()
    if study.search.chosen_later:
        layout += [{path: value} for path, dim in study.search.space.items() for value in samples_of(dim)[0]]
    return list(dict.fromkeys(study.trial(changes).victim for changes in layout))
