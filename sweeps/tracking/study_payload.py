"""A study in MLflow's terms, as long as it runs: its base, what started it, its data, and how to go on from there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlencode

from pydantic import JsonValue, ValidationError

from sweeps.tracking.ledger import Source
from sweeps.tracking.payload import NOTE, DataInput, Payload, leaves, name_of, text_of
from sweeps.tracking.view import TRAINING, View
from ubt.common.secrets import without_credentials
from ubt.config import get_path
from ubt.trials.planned import PLAN_FILE, PlannedCosts, PlannedData

_BASE = ("victim", "defense", "metrics")
"""The parts of a study that are its base configuration; the rest says how it is swept."""
_CONTEXTS = {"train": "training", "val": "validation", "test": "test"}
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<kind>trial|artifact|image|model):(?P<to>[^)\s]*)\)")
"""A link to what MLflow has an address for: a trial's run, or a file of the study's, as a page or as it is."""


def of_study(study: Mapping[str, JsonValue], folder: Path, source: Source) -> Payload:
    """Return what the study's run shows of the study itself."""
    base = {part: study[part] for part in _BASE if part in study}
    search = study.get("search")
    tags = {
        "mlflow.source.name": source.command,
        "mlflow.source.type": "LOCAL" if source.command else "",
        "mlflow.user": source.user,
        "attack": _text_at(study, "victim.attack.kind"),
        "model": _text_at(study, "victim.model.name"),
        "defense": _text_at(study, "defense.kind"),
        "design": str(search.get("design", "")) if isinstance(search, dict) else "",
        NOTE: f"The sweep has begun; what came of it will stand here.\n\n{how_to_go_on(folder, source.command)}",
    }
    return Payload(
        params={name_of(path): text_of(value) for path, value in leaves(base)},
        tags=tags,
        inputs=inputs_of(folder / PLAN_FILE, study),
    )


def view_of(study: Mapping[str, JsonValue], identity: str) -> View:
    """Return the study's prepared page, as far as it is known before anything has run."""
    search, seeds = study.get("search"), study.get("seeds")
    search = search if isinstance(search, dict) else {}
    space = search.get("space")
    return View(
        identity,
        knobs=tuple(map(name_of, space)) if isinstance(space, dict) else (),
        seeds=len(seeds) if isinstance(seeds, list) else 1,
        attacked=bool(_text_at(study, "victim.attack.kind")) or search.get("design") == "comparison",
        labels=_LABELS.get(str(search.get("design")), ("front", "chosen")),
    )


_LABELS = {"leave_one_out": ("component",), "comparison": ("cell",)}
"""Designs whose trials have names: tags that say them; of the others, the tags that say what came of them."""


def inputs_of(plan: Path, study: Mapping[str, JsonValue]) -> tuple[DataInput, ...]:
    """Return the parts of the data that a plan says the study is run on; nothing if it does not say it."""
    try:
        planned = PlannedCosts.model_validate_json(plan.read_bytes()).data
    except (OSError, ValidationError):
        return ()
    try:
        source = json.dumps(get_path(study, "victim.data"))
    except KeyError:
        source = ""
    return tuple(found for data in planned for found in _inputs(data, without_credentials(source)))


def _inputs(data: PlannedData, source: str) -> Iterable[DataInput]:
    for part, context in _CONTEXTS.items():
        if count := data.counts.get(part, 0):
            yield DataInput(f"{data.kind} {part}", data.key[:36], context, count, data.kind, source)


def how_to_go_on(folder: Path, command: str) -> str:
    """Return the command that a run began with, and those that say more of it or take it further, in Markdown.

    (Of a command with a path in it MLflow shows the end of the path alone.)
    """
    run = shlex.quote(str(folder))
    lines = (
        *((f"{command}   # what started it",) if command else ()),
        f"ubt report {run}             # the report, with what is done by now",
        f"ubt export {run} --out cleaned.safetensors   # the chosen model",
        f"ubt track {run}              # send what MLflow lacks",
    )
    return "\n".join(("### How to go on", "", "```bash", *lines, "```"))


def with_addresses(note: str, run_page: str, run: str, trials: Mapping[str, str], model_page: str = "") -> str:
    """Return a note with MLflow's addresses in its links; a link to a trial that is not there becomes its text.

    Args:
        note: in Markdown, with links to `trial:NAME`, `artifact:PATH`, `image:PATH`, and `model:PATH`, which is a file
            of the study's where MLflow has no model.
        run_page: address of a run's page without the run's id.
        run: id of the study's run.
        trials: ids of the trials' runs, by name.
        model_page: address of the chosen model's page; empty if there is none.
    """

    def address(found: re.Match[str]) -> str:
        if found["kind"] == "model" and model_page:
            return f"[{found['text']}]({model_page}?{urlencode(TRAINING)})"
        if found["kind"] in {"artifact", "model"}:
            return f"[{found['text']}]({run_page}{run}/artifacts/{found['to']}?{urlencode(TRAINING)})"
        if found["kind"] == "image":
            return f"[{found['text']}](get-artifact?{urlencode({'path': found['to'], 'run_uuid': run})})"
        known = trials.get(found["to"])
        return f"[{found['text']}]({run_page}{known}?{urlencode(TRAINING)})" if known else found["text"]

    return _LINK.sub(address, note)


def _text_at(study: Mapping[str, JsonValue], path: str) -> str:
    try:
        return text_of(get_path(study, path))
    except KeyError:
        return ""
