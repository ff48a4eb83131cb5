"""What earlier versions wrote, as this version writes it: the record of a trial, and the study of a run folder.

Version 0.1 had `measures` for further metrics, and a detector by name beside the neighbours that it looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import cast

from pydantic import JsonValue

from ubt.common.errors import UserError
from ubt.config.dotted_paths import JsonObject
from ubt.trials.labels import label_of_text

FORMER_STAGES = {"score": "detect_clean", "gain": "detect_gain", "rescore": "detect_poisoned"}
"""Stages of version 0.1 that are called otherwise now; its `density` was two detectors."""
WITH_NEIGHBOURS = {"knn", "lof"}
"""Detectors that look at `neighbours`; in version 0.1 any could be given them."""
DETECTOR = "defense.detector"
FORMER_PATHS = {"measures": "metrics", "defense.neighbours": f"{DETECTOR}.neighbours"}
"""Dotted paths of version 0.1 that are called otherwise now."""


PACKAGE = "ubt-sweeper"
"""The distribution whose version a record names."""
LOST_WORKER = "its worker or node died"
"""What ended an attempt that records of version 2 only count: nothing else made a trial start again."""


def migrated_record(document: JsonValue) -> JsonValue:
    """Return a record's JSON as version 3 of records; one that this version of the package wrote as it is.

    One of another version of the package may lack settings that there are since: it ran with their defaults.
    """
    if not isinstance(document, dict):
        return document
    if document.get("version") in {1, 2}:
        document = _with_splits_and_attempts(_of_version_2(document) if document["version"] == 1 else document)
    versions = document.get("versions")
    written_by = versions.get(PACKAGE) if isinstance(versions, dict) else None
    if written_by in {None, installed_version()}:
        return document
    return {**document, "config": _complete(document["config"])}


@cache
def installed_version() -> str:
    """Return the version of this package; looking it up takes a millisecond, and every record asks for it."""
    return version(PACKAGE)


def _complete(config: JsonValue) -> JsonValue:
    """Return a trial's configuration with every setting that there is now; as it is, if it needs a plug-in not here."""
    from ubt.trials.config import TrialConfig  # noqa: PLC0415 — 0.2 s, and few records are of another version

    try:
        return TrialConfig.model_validate(config).as_json()
    except (ValueError, UserError):
        return config


def _with_splits_and_attempts(document: JsonObject) -> JsonObject:
    """Return a record of version 2 as version 3: rates name their split, and attempts are described, not counted."""
    splits = {"val": "val", "test": "test", "poisoned_val": "val", "poisoned_test": "test"}
    rates = {name: _of_split(document[name], split) for name, split in splits.items() if name in document}
    started = {"started_at": document.get("started_at", "")}
    earlier: list[JsonValue] = [{"ended_by": LOST_WORKER}] * (int(cast(int, document.get("attempts", 1))) - 1)
    return {
        **document,
        **rates,
        "version": 3,
        "stages": [_with_split_of_epochs(stage) for stage in cast("list[JsonObject]", document.get("stages") or [])],
        "attempts": [*earlier, started],
    }


def _with_split_of_epochs(stage: JsonObject) -> JsonObject:
    epochs = cast("list[JsonObject]", stage.get("epochs") or [])
    return {**stage, "epochs": [{**epoch, "val": _of_split(epoch.get("val"), "val")} for epoch in epochs]}


def _of_split(rates: JsonValue, split: str) -> JsonValue:
    return {**rates, "split": split} if isinstance(rates, dict) else rates


def _of_version_2(document: JsonObject) -> JsonObject:
    """Return a record of version 1 as version 2.

    It had labels as text, a stage's diagnostics under `metrics`, and other names for the detectors' stages.
    """
    config, changes = (cast(JsonObject, document.get(part) or {}) for part in ("config", "changes"))
    defense = config.get("defense")
    detector = defense.get("detector", "") if isinstance(defense, dict) else ""
    names = {**FORMER_STAGES, "density": f"detect_{detector}"}
    stages = cast("list[JsonObject]", document.get("stages") or [])
    return {
        **document,
        "version": 2,
        "config": {**_renamed(config, FORMER_PATHS), **({"defense": _defense(defense)} if defense else {})},
        "changes": {
            path: {"kind": value} if path == DETECTOR else _defense(value)
            for path, value in _renamed(changes, FORMER_PATHS).items()
            if path != f"{DETECTOR}.neighbours" or detector in WITH_NEIGHBOURS
        },
        "label": label_of_text(str(document.get("label") or "")).as_json(),
        "stages": [
            {**_renamed(stage, {"metrics": "diagnostics"}), "stage": names.get(str(stage["stage"]), stage["stage"])}
            for stage in stages
        ],
    }


def migrated_study(study: JsonObject) -> JsonObject:
    """Return the study of a run folder as this version writes it. Those of version 0.1 are known by `measures`."""
    if "measures" not in study:
        return study
    defense = study.get("defense")
    parts: JsonObject = {"defense": _defense(defense), "search": _search(study.get("search"), defense)}
    return _renamed({**study, **{name: part for name, part in parts.items() if name in study}}, FORMER_PATHS)


def _defense(defense: JsonValue) -> JsonValue:
    """Return a defense's settings with the detector as a part of its own; any other value as it is."""
    if not isinstance(defense, dict) or not isinstance(defense.get("detector"), str):
        return defense
    rest = {name: value for name, value in defense.items() if name != "neighbours"}
    return {**rest, "detector": _detector(defense["detector"], defense)}


def _detector(kind: JsonValue, beside: JsonObject) -> JsonValue:
    """Return a detector with those of the settings `beside` that are its own."""
    neighbours = beside.get("neighbours")
    return {"kind": kind, **({"neighbours": neighbours} if kind in WITH_NEIGHBOURS and neighbours is not None else {})}


def _search(search: JsonValue, base: JsonValue) -> JsonValue:
    """Return a study's search, or the part of a study that has one, over a `base` defense of version 0.1."""
    if not isinstance(search, dict):
        return search
    changed: JsonObject = {}
    for name, part in search.items():
        match name, part:
            case "space", dict():
                changed[name] = _changes(part, base)
            case "when", dict():
                changed[name] = _renamed({path: _condition(asked) for path, asked in part.items()}, FORMER_PATHS)
            case "trials", list():
                changed[name] = [_changes(trial, base) if isinstance(trial, dict) else trial for trial in part]
            case "designs", list():
                changed[name] = [_search(design, base) for design in part]
            case "defenses", dict():
                changed[name] = {row: _compared(compared) for row, compared in part.items()}
            case _:
                changed[name] = part
    return changed


def _compared(row: JsonValue) -> JsonValue:
    """Return a defense of a comparison, with its search."""
    if not isinstance(row, dict):
        return row
    own = row.get("defense")
    return {**row, "defense": _defense(own), "search": _search(row.get("search"), own)}


def _condition(asked: JsonValue) -> JsonValue:
    """Return a condition; one that asked for a detector by name asks for its kind."""
    return _renamed(asked, {**FORMER_PATHS, DETECTOR: f"{DETECTOR}.kind"}) if isinstance(asked, dict) else asked


def _changes(changes: JsonObject, base: JsonValue) -> JsonObject:
    """Return dotted paths with their values, or lists of values; a detector has the neighbours of the base."""
    beside = base if isinstance(base, dict) else {}

    def of_now(path: str, value: JsonValue) -> JsonValue:
        if isinstance(value, list):
            return [of_now(path, one) for one in value]
        return _detector(value, beside) if path == DETECTOR and isinstance(value, str) else _defense(value)

    return _renamed({path: of_now(path, value) for path, value in changes.items()}, FORMER_PATHS)


def _renamed(tree: Mapping[str, JsonValue], names: Mapping[str, str]) -> JsonObject:
    return {names.get(name, name): value for name, value in tree.items()}
