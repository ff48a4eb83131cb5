"""What is wrong with a model as configured, before anything is fetched or computed. Loads no torch."""

from __future__ import annotations

import difflib
from pathlib import Path

from ubt.common.errors import Problem, UserError
from ubt.common.paths import is_file
from ubt.models.activation import activation_of, check_poisoned
from ubt.models.settings import ModelSettings, model_files


def check_model(model: ModelSettings, poisoned: Path | None = None) -> None:
    """Refuse a model that cannot be built, and a `poisoned` checkpoint that does not belong to it.

    Raises:
        UserError: with every mistake found.
    """
    problems = []
    if model.name not in model_files():
        near = difflib.get_close_matches(model.name, model_files(), n=3, cutoff=0.4)
        advice = f"nearest: {', '.join(near)}" if near else "e.g. tiny-rn, RN50, ViT-B-32"
        problems.append(Problem("victim.model.name", "open_clip has no such model", model.name, advice))
    for where, path in (("victim.model.checkpoint", model.checkpoint), ("victim.implant.checkpoint", poisoned)):
        if path and not is_file(path):
            problems.append(Problem(where, "there is no such file", str(path)))
    if problems:
        raise UserError(problems)
    activation_of(model)
    if poisoned:
        check_poisoned(model, poisoned)
