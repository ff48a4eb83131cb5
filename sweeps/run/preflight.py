"""Before the first trial: every mistake is met, and the data decoded, while nothing runs yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from sweeps.backends.fitness import Expected
from sweeps.search.space import samples_of
from sweeps.study.checks import problems_of
from sweeps.study.config import StudyConfig
from sweeps.tracking.faults import check_driver
from ubt.artifacts.store import ArtifactStore, local_cache
from ubt.common.errors import Problem, UserError
from ubt.common.registry import load_plugins
from ubt.config.base import kind_of
from ubt.config.dotted_paths import JsonObject
from ubt.data import content_key
from ubt.data.base import DataSet, DataSource
from ubt.engine.given_poison import located
from ubt.engine.graph import build_pipeline
from ubt.engine.same_content import keep_index, planned_files, share_facts
from ubt.models.settings import image_size_px
from ubt.models.trying import weights_tried
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig, VictimConfig
from ubt.trials.feasible import check_trial, check_victim
from ubt.trials.poison import GivenPoison

Decoded = tuple[list[Problem], dict[str, int]]
"""What is wrong with the data sets of trials, and their files of decoded images with the sizes in bytes."""


def prepare(
    study: StudyConfig, store: str, decode: Callable[[StudyConfig, str], Decoded] | None = None, inline: bool = False
) -> dict[str, int]:
    """Meet every mistake before a worker starts: the store, the data (decoded once), triggers, weights.

    Return the files of decoded images, with their sizes in bytes. `decode` has them decoded elsewhere than here. Trials
    that run `inline` need torch in this process, which may as well try weights, then.

    Raises:
        UserError: with everything that cannot be used.
    """
    ArtifactStore(store).check_writable()
    trials = trials_of(study)
    victims = victims_of(trials)
    named = dict.fromkeys((v.model, v.implant.checkpoint) for v in victims if _has_weights(v))
    with weights_tried(list(named), apart=not inline) as tried:  # beside the decoding
        problems, images = decode(study, store) if decode else decode_here(trials, store)
        for attack in {victim.attack: None for victim in victims}:
            problems += problems_of(attack.read) if attack else []
        problems += tried()
    problems += problems_of(partial(check_driver, study.tracking.uri)) if study.tracking.enabled else []
    if problems:
        raise UserError(problems)
    for data in dict.fromkeys(victim.data for victim in victims):
        keep_index(ArtifactStore(store), data)
    return images


def _has_weights(victim: VictimConfig) -> bool:
    return bool(victim.model.weights_file or victim.model.fetched or victim.implant.checkpoint)


def decode_here(trials: Sequence[TrialConfig], store: str) -> Decoded:
    """Decode the data sets of trials, and check that the trials can be run on what is in them.

    Raises:
        UserError: if decoded images cannot be kept on this machine.
    """
    _check_writable(store)
    problems: list[Problem] = []
    images: dict[str, int] = {}
    by_data: dict[tuple[DataSource, int], list[TrialConfig]] = {}
    for trial in trials:
        victim = trial.victim
        by_data.setdefault((victim.data, image_size_px(victim.model.name)), []).append(trial)
    for (data, size_px), of_data in by_data.items():
        problems += problems_of(partial(_decode, data, size_px, store, of_data, images))
    return problems, images


def decode_on_a_node(study: StudyConfig, store: str) -> Decoded:
    """Have a node of the cluster that this process has joined decode the data sets of a study.

    Raises:
        UserError: if no node can.
    """
    from sweeps.backends.node_tasks import on_a_node  # noqa: PLC0415 — Ray

    trials = [trial.as_json() for trial in trials_of(study)]
    return on_a_node("the data to be decoded", study.resources, decode_sent, trials, study.plugins, store)


def decode_sent(trials: Sequence[JsonObject], plugins: Sequence[str], store: str) -> Decoded:
    """Decode the data sets of trials that were sent to this node as plain values.

    Raises:
        UserError: as `decode_here`, or if a plug-in is missing.
    """
    load_plugins(plugins)
    return decode_here([TrialConfig.model_validate(trial) for trial in trials], store)


def _check_writable(store: str) -> None:
    """Raise `UserError` if decoded images cannot be kept: for a store on S3 they lie on a disk of this machine."""
    with _images_of(store) as cache:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=cache):
            pass


def _decode(data: DataSource, size_px: int, store: str, trials: Sequence[TrialConfig], images: dict[str, int]) -> None:
    """Decode a data set, and check that the trials on it can be run on what is in it; add its files to `images`.

    Raises:
        UserError: with everything that cannot be used, each once.
    """
    shared = ArtifactStore(store)
    with _images_of(store) as folder:
        share_facts(shared, data)  # what another machine knows, then what this one does
        loaded = data.load(size_px, folder)
        share_facts(shared, data)
    parts = (loaded.train, loaded.val, loaded.test, loaded.pretrain)
    files = [part.images for part in parts if part and isinstance(part.images, np.memmap)]
    images.update({Path(str(file.filename)).name: file.nbytes for file in files})
    by_victim: dict[VictimConfig, list[TrialConfig]] = {}
    for trial in trials:
        by_victim.setdefault(trial.victim, []).append(trial)
    found = [one for victim, group in by_victim.items() for one in _problems_on(loaded, victim, group)]
    if found:
        raise UserError({str(problem): problem for problem in found}.values())


def _problems_on(data: DataSet, victim: VictimConfig, trials: Sequence[TrialConfig]) -> list[Problem]:
    problems = problems_of(partial(check_victim, victim, data))
    poisoned: int | None = None
    if isinstance(victim.poisoning, GivenPoison):
        try:
            given = located(victim.poisoning, data.train)
        except UserError as error:
            problems += error.problems
        else:
            poisoned = None if given is None else len(given.indices)
    elif victim.attack is not None:
        poisoned = victim.attack.count(len(data.train))
    if not problems:  # what is left for a defense would follow from them
        for trial in trials:
            problems += problems_of(partial(check_trial, trial, data, poisoned))
    return problems


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


def expected_of(study: StudyConfig, store: str, images: Mapping[str, int]) -> Expected:
    """Return what every node of a cluster has to be like for a study; `images` are the files of decoded images."""
    data_key = cache(content_key)
    distinct = {_parts(trial): trial for trial in reversed(trials_of(study))}
    trials = []
    for trial in distinct.values():
        key, seed = data_key(trial.victim.data), study.seeds[0]
        assignment = Assignment(
            study=study.name,
            trial="preflight",
            number=0,
            seed=seed,
            config=trial.as_json(),
            data_key=key,
            files=planned_files(trial, study.plugins),
            keys=tuple(node.key for node in build_pipeline(trial, seed, key)),
            plugins=study.plugins,
            store=store,
        )
        trials.append(assignment.as_json())
    return Expected(
        store=store,
        plugins=study.plugins,
        trials=tuple(trials),
        images=images if "://" in store else {},  # in a folder that all share they are there already
        gpus=study.resources.gpus_per_trial > 0,
    )


def _parts(trial: TrialConfig) -> tuple[object, ...]:
    """Return what decides which files and plug-ins a trial needs on its node."""
    victim = trial.victim
    kinds = tuple(part and kind_of(type(part)) for part in (victim.attack, trial.defense, *trial.metrics))
    triggers = tuple(victim.attack.files().items()) if victim.attack else ()
    return (victim.data, victim.model, victim.implant.checkpoint, victim.poison, triggers, kinds)


def victims_of(trials: Iterable[TrialConfig]) -> list[VictimConfig]:
    """Return the distinct victims of trials."""
    return list(dict.fromkeys(trial.victim for trial in trials))


def trials_of(study: StudyConfig) -> list[TrialConfig]:
    """Return the distinct configurations; where results decide them, those with one searched value each."""
    layout = study.layout()
    if study.search.chosen_later:
        layout += [{path: value} for path, dim in study.search.space.items() for value in samples_of(dim)[0]]
    return list(dict.fromkeys(study.trial(changes) for changes in layout))
