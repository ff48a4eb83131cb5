"""Whether a trial can be run on its data, once that is known: asked before anything is trained. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ubt.common.errors import Problem, UserError
from ubt.data.base import DataSet, Labelled
from ubt.defenses.base import Counts
from ubt.trials.config import TrialConfig, VictimConfig
from ubt.trials.poison import MadePoison


def check_victim(victim: VictimConfig, data: DataSet) -> None:
    """Refuse data that a victim cannot be made or measured with.

    Too few pairs to contrast or to poison, one class alone, or a split without images that the trigger could be put on.

    Raises:
        UserError: with everything that is wrong.
    """
    problems: list[Problem] = []
    _too_few(problems, "training", len(data.train))
    if victim.model.trained_here:
        if data.pretrain is None:
            advice = "give the data `pretrain` pairs, or the model weights: `pretrained` or `checkpoint`"
            problems.append(
                Problem("victim.model", "is to be trained, and the data has no `pretrain` pairs", None, advice)
            )
        else:
            _too_few(problems, "pre-training", len(data.pretrain))
    if len(data.classes) < 2:
        message = f"{len(data.classes)} class is too few: images are told apart by their class"
        problems.append(Problem("victim.data", message, list(data.classes)))
    for name, split in (("validation", data.val), ("test", data.test)):
        _check_split(problems, name, split, victim, data)
    if victim.attack is not None and isinstance(victim.poisoning, MadePoison) and len(data.train) > 1:
        _collect(problems, partial(victim.attack.check_pairs, data.train.captions))
    if problems:
        raise UserError(problems)


def _too_few(problems: list[Problem], what: str, pairs: int) -> None:
    if pairs < 2:
        message = f"has {pairs} {what} pair{'' if pairs == 1 else 's'}; a batch contrasts two at least"
        problems.append(Problem("victim.data", message))


def _check_split(problems: list[Problem], name: str, split: Labelled, victim: VictimConfig, data: DataSet) -> None:
    if not len(split):
        problems.append(Problem("victim.data", f"has no {name} images"))
    elif victim.attack is not None and victim.attack.target in data.classes:
        target = list(data.classes).index(victim.attack.target)
        if not np.any(split.labels != target):
            message = f"all {len(split)} {name} images are of the target `{victim.attack.target}`"
            advice = "ASR is measured on images of other classes: add some, or take another victim.attack.target"
            problems.append(Problem("victim.data", message, None, advice))


def check_trial(trial: TrialConfig, data: DataSet, poisoned: int | None) -> None:
    """Refuse data that is too little for the trial's defense or metrics, with `poisoned` pairs in it, None if unknown.

    Raises:
        UserError: with everything that is wrong.
    """
    counts = Counts(
        pairs=len(data.train),
        poisoned=poisoned or 0,
        clean_pairs=None if data.pretrain is None else len(data.pretrain),
        val_classes=len(np.unique(data.val.labels)),
    )
    problems: list[Problem] = []
    _collect(problems, partial(trial.defense.check_counts, counts))
    for metric in trial.metrics:
        _collect(problems, partial(metric.check_counts, counts))
    if problems:
        raise UserError(problems)


def _collect(problems: list[Problem], check: Callable[[], None]) -> None:
    try:
        check()
    except UserError as error:
        problems += error.problems
