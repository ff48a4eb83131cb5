"""Before the first trial: every mistake is met, and the data decoded, while nothing runs yet."""

from __future__ import annotations

from functools import partial

from sweeps.checks import problems_of
from sweeps.search.designs import Adaptive
from sweeps.search.space import samples_of
from sweeps.study import StudyConfig
from ubt.errors import Problem, UserError
from ubt.models.names import image_size_px
from ubt.store import ArtifactStore, local_cache
from ubt.victim import VictimConfig


def prepare(study: StudyConfig, store: str) -> None:
    """Meet every mistake before a worker starts: the store, the data (decoded here, once), the weights.

    Raises:
        UserError: with everything that cannot be used.
    """
    ArtifactStore(store).check_writable()  # decoded images go there too
    problems: list[Problem] = []
    victims = victims_of(study)
    for data, size_px in {(victim.data, image_size_px(victim.model.name)): None for victim in victims}:
        problems += problems_of(partial(data.load, size_px, local_cache(store)))
    with_weights = [v for v in victims if v.model.checkpoint or v.model.pretrained or v.implant.checkpoint]
    if with_weights:
        from ubt.models.check import check_weights  # noqa: PLC0415 — torch, 5 s, only where there are weights

        for victim in {(victim.model, victim.implant.checkpoint): victim for victim in with_weights}.values():
            problems += problems_of(partial(check_weights, victim))
    if problems:
        raise UserError(problems)


def victims_of(study: StudyConfig) -> list[VictimConfig]:
    """Return the victims that trials have; of an adaptive search those with one searched value each."""
    search = study.search
    if isinstance(search, Adaptive):
        layout = [{}, *({path: value} for path, dim in search.space.items() for value in samples_of(dim)[0])]
    else:
        layout = study.layout()
    return list(dict.fromkeys(study.trial(changes).victim for changes in layout))
