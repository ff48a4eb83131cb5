"""The study that cleans a checkpoint, put together from what a defender has: no attack, often no labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from analysis import load_run
from analysis.comparison.compare import METHOD
from analysis.comparison.members import members
from sweeps.run.preflight import trials_of
from sweeps.study.config import StudyConfig
from sweeps.study.loading import absolute, study_of
from ubt.artifacts.remote_folder import shown
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import numpy_generator
from ubt.common.paths import expanded, is_file, is_folder
from ubt.config.base import kind_of
from ubt.config.dotted_paths import JsonObject
from ubt.data.csv import CsvFiles
from ubt.data.tables import Row, raise_if_any
from ubt.data.vocabulary import same_name
from ubt.engine.spec import stage_named
from ubt.models.settings import image_size_px

RUN = "run"
"""The run folder inside `--out`: records, report and all else of the trials."""
CLEAN = "clean"
"""The role that the clean model fills among a stage's inputs."""
CAPTIONS = "captions"
"""The folder inside `--out` with pairs that stand for labelled images: of an earlier call, it is written anew."""

_RATES = {True: (2e-4, 4e-4), False: (1e-6, 3e-6)}
"""Learning rates that are tried: of a model of 32 pixels, and of the larger ones of open_clip (not measured here)."""
_RATIOS = (0.02, 0.05)
_IMAGES = 256
"""Pairs a split that stand for labelled images, where there are none."""


@dataclass(frozen=True)
class Request:
    """What a defender has, and where the result goes."""

    model: str
    """Name of the architecture in open_clip, or `tiny-rn`."""
    checkpoint: Path
    """Weights of the suspicious model."""
    pairs: Path
    """Table of the pairs that it was trained on, poison and all."""
    out: Path
    reference_model: str | None = None
    """Tag of published weights of a clean model of that architecture, …"""
    reference_checkpoint: Path | None = None
    """… or its weights in a file."""
    labels: Path | None = None
    """Labelled images to measure CA on, half of them to choose by and half to report."""
    classes: str | None = None
    templates: str | None = None
    settings: Path | str | None = None
    """Run folder whose chosen settings of UBT are taken; by default a few are tried."""
    assignments: Sequence[str] = field(default=())
    """Fields of the study in other than their usual places, as after `--set`."""

    @property
    def has_reference(self) -> bool:
        """Return whether the defender has a clean model."""
        return bool(self.reference_model or self.reference_checkpoint)


def study_for(request: Request) -> StudyConfig:
    """Return the study that cleans a checkpoint.

    Raises:
        UserError: with every mistake in what was given.
    """
    _check(request)
    weights = {"pretrained": request.reference_model, "checkpoint": _path(request.reference_checkpoint)}
    if not request.has_reference:  # no detector that runs then looks at M_c, and no row shows it
        weights = {"checkpoint": _path(request.checkpoint)}
    tree: JsonObject = {
        "name": RUN,
        "victim": {
            "data": _data(request),
            "model": {
                "name": absolute(request.model, "victim.model.name", Path.cwd(), "--model"),
                **{name: value for name, value in weights.items() if value},
            },
            "implant": {"checkpoint": _path(request.checkpoint)},
            "attack": None,
        },
        "defense": _defense(request),
        "search": _search(request),
        "objectives": {"rule": "trigger_free", "epochs": "last", **({} if request.labels else {"ca_floor": 1.0})},
        **({} if request.labels else {"gates": {"clean_accuracy": {"act": "report"}}}),
        "tracking": {"enabled": False},
    }
    study = study_of(tree, "ubt clean", request.assignments)
    _check_defense(request, study)
    return study


def _check_defense(request: Request, study: StudyConfig) -> None:
    """Refuse settings, taken from a run or said by `--set`, that are not UBT's, or need a clean model where none is.

    Raises:
        UserError: naming them.
    """
    where = "--settings" if request.settings else "defense"
    for defense in dict.fromkeys(trial.defense for trial in trials_of(study)):
        kind = kind_of(type(defense))
        if kind != METHOD:
            raise UserError(Problem(f"{where}.kind", f"a checkpoint is cleaned by `{METHOD}` alone", kind))
        comparing = [name for name in defense.stages if CLEAN in stage_named(name).needs]
        if comparing and not request.has_reference:
            message = f"stage `{comparing[0]}` compares with a clean model, and none is given"
            advice = "give --reference-model or --reference-checkpoint, or say --set defense.detector.kind=lof"
            raise UserError(Problem(where, message, advice=advice))


def _check(request: Request) -> None:
    problems = []
    if request.reference_model and request.reference_checkpoint:
        message = "names a clean model, and --reference-checkpoint another"
        problems.append(Problem("--reference-model", message, request.reference_model, "keep one of both"))
    named = (
        ("--checkpoint", request.checkpoint),
        ("--pairs", request.pairs),
        ("--reference-checkpoint", request.reference_checkpoint),
        ("--labels", request.labels),
    )
    for option, path in named:
        if path is not None and not _is_there(expanded(str(path), option)):
            problems.append(Problem(option, "there is no such file", str(path)))
    if request.labels and not request.classes:
        advice = "a text file with one class a line, or `imagenet`"
        problems.append(Problem("--classes", "is missing: labelled images are classified among them", advice=advice))
    if request.classes and not request.labels:
        problems.append(Problem("--classes", "is of no use without --labels", request.classes))
    if request.out.exists() and not request.out.is_dir():
        problems.append(Problem("--out", "is a file", str(request.out), "give a folder"))
    elif request.out.is_dir() and {path.name for path in request.out.iterdir()} - {CAPTIONS} and not _has_run(request):
        problems.append(Problem("--out", "holds other files", str(request.out), "give a new or an empty folder"))
    raise_if_any(problems)


def _is_there(path: Path) -> bool:
    return is_file(path) or is_folder(path)


def _has_run(request: Request) -> bool:
    return (request.out / RUN).is_dir()


def _path(path: Path | None) -> str | None:
    return None if path is None else str(expanded(str(path), "ubt clean").absolute())


def _data(request: Request) -> JsonObject:
    if request.labels:
        words = {"classes": request.classes, "templates": request.templates}
        given = {name: _words(value) for name, value in words.items() if value}
        return {"kind": "csv", "pairs": _path(request.pairs), "labels": _path(request.labels), **given}
    return {"kind": "csv", "pairs": _path(request.pairs), **captions_as_classes(request)}


def _words(value: str) -> str:
    """Return a file's absolute path; the name of what comes with a package as it is."""
    path = expanded(value, "ubt clean")
    return str(path.absolute()) if is_file(path) else value


def captions_as_classes(request: Request) -> JsonObject:
    """Return evaluation images where none are labelled: pairs of D, each of the class that is its own caption.

    CA is then how often an image is nearer to its own caption than to those of the other pairs that were drawn.

    Raises:
        UserError: with every mistake in the pairs, or if their captions are too few.
    """
    problems: list[Problem] = []
    pairs = CsvFiles.model_validate({"pairs": request.pairs, "labels": request.pairs, "classes": "imagenet"})
    rows = pairs.read_pairs(request.pairs, problems)
    raise_if_any(problems)
    order = numpy_generator(0, "pairs that stand for labelled images").permutation(len(rows))
    named = [(rows[at], name) for at in order if (name := _class_name(rows[at].text))][: 2 * _IMAGES]
    classes: dict[str, str] = {}
    for _, name in named:
        classes.setdefault(same_name(name), name)
    if len(classes) < 2:
        message = "has fewer than two different captions, so that nothing can be told apart"
        raise UserError(Problem("--pairs", message, str(request.pairs), "give --labels and --classes"))
    folder, numbers = request.out / CAPTIONS, {same: at for at, same in enumerate(classes)}
    half = len(named) // 2
    files = {
        "classes": write_whole(folder / "classes.txt", "\n".join(classes.values()) + "\n"),
        "templates": write_whole(folder / "templates.txt", "{}\n"),
        "labels": write_whole(folder / "labels.csv", _labels(named[:half], numbers)),
        "test_labels": write_whole(folder / "test-labels.csv", _labels(named[half:], numbers)),
    }
    return {name: str(path.absolute()) for name, path in files.items()}


def _class_name(caption: str) -> str:
    """Return a caption as a line of text; nothing for a number, which would be taken for the index of a class."""
    name = " ".join(caption.split())
    return "" if name.isdecimal() else name


def _labels(named: Iterable[tuple[Row, str]], numbers: dict[str, int]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label"])
    writer.writerows([str(row.image.absolute()), numbers[same_name(name)]] for row, name in named)
    return text.getvalue()


def _defense(request: Request) -> JsonObject:
    if request.settings:
        return settings_of(request.settings)
    detector = "gain" if request.has_reference else "lof"
    rate = _RATES[_is_small(request.model)][0]
    return {
        "kind": "ubt",
        "detector": {"kind": detector},
        "suspicious_ratio": _RATIOS[0],
        "overfit_epochs": 3,
        **({} if _is_small(request.model) else {"overfit_learning_rate": 1e-6}),
        "unlearn_samples": 128,
        "unlearn_epochs": 8,
        "unlearn_learning_rate": rate,
    }


def _search(request: Request) -> JsonObject:
    if request.settings:
        return {"design": "grid", "space": {}}
    rates: JsonValue = list(_RATES[_is_small(request.model)])
    space: JsonObject = {"defense.suspicious_ratio": list(_RATIOS), "defense.unlearn_learning_rate": rates}
    return {"design": "grid", "space": space}


def _is_small(model: str) -> bool:
    try:
        return image_size_px(model) <= 64
    except UserError:
        return False  # what is wrong with the name is said when the study is checked


def settings_of(run: Path | str) -> JsonObject:
    """Return the settings of UBT that a run has chosen; of a comparison those that its table has.

    Raises:
        UserError: if the folder is no run, or it has chosen no settings of UBT.
    """
    findings = load_run(run).findings
    if findings.run.compared:
        found = [next(iter(m.configurations.values()), None) for m in members(findings) if m.kind == METHOD]
        chosen = next((configuration for configuration in found if configuration), None)
    else:
        chosen = findings.chosen
    defense = chosen.config.get("defense") if chosen else None
    if not isinstance(defense, dict) or defense.get("kind") != METHOD:
        message = "has chosen no settings of UBT" if defense is None else "has chosen another defense than UBT"
        raise UserError(Problem("--settings", message, shown(run), "give a run that has, or leave the option out"))
    return defense
