"""What differs between the studies of runs, setting by setting, and in what they were made with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from analysis.formatting import setting_text
from analysis.records import RunRecords
from analysis.side_by_side.sides import Side

NO_RESULT_DEPENDS_ON = ("name", "store", "tracking")
"""Parts of a study that are left out: where things are kept, and what they are called."""
ABSENT = "–"


@dataclass(frozen=True)
class Differing:
    """One thing that is not the same in all runs."""

    part: Literal["study", "made with"]
    path: str
    """Dotted path in the study; what was used, as `torch`."""
    values: tuple[str, ...]
    """For each run, in words; `–` where it has none."""


def differing(sides: Sequence[Side]) -> tuple[Differing, ...]:
    """Return all that differs, in the order of the studies' fields."""
    studies = [_settings(side.findings.run) for side in sides]
    made = [_made_with(side.findings.run) for side in sides]
    return (*_rows("study", studies), *_rows("made with", made))


def _rows(part: Literal["study", "made with"], found: Sequence[Mapping[str, JsonValue]]) -> Iterator[Differing]:
    for path in dict.fromkeys(path for one in found for path in one):
        values = [json.dumps(one[path], sort_keys=True) if path in one else None for one in found]
        if len(set(values)) > 1:
            yield Differing(part, path, tuple(setting_text(one[path]) if path in one else ABSENT for one in found))


def _settings(run: RunRecords) -> dict[str, JsonValue]:
    study: dict[str, JsonValue] = json.loads(run.study_json)
    return dict(_leaves({name: value for name, value in study.items() if name not in NO_RESULT_DEPENDS_ON}))


def _leaves(tree: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _made_with(run: RunRecords) -> dict[str, JsonValue]:
    """Return what trials were computed with: the distinct values over all of them."""
    found: dict[str, dict[str, None]] = {}
    for record in run.records:
        own = {"code": record.commit, "device": record.device_kind or record.device, **record.versions}
        for what, value in own.items():
            if value:
                found.setdefault(what, {})[value] = None
    return {what: ", ".join(values) for what, values in found.items()}
