"""What is wrong with a model as configured, before anything is fetched or computed. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ubt.common.errors import Problem, UserError
from ubt.common.paths import is_file
from ubt.models.activation import activation_of, check_poisoned, unknown_tag
from ubt.models.settings import ModelSettings, model_config, needs_transformers
from ubt.models.weight_files import CONFIG_FILE, WEIGHTS_FILE, check_kind


def check_model(model: ModelSettings, poisoned: Path | None = None) -> None:
    """Refuse a model that cannot be built, and a `poisoned` checkpoint that does not belong to it.

    Raises:
        UserError: with every mistake found.
    """
    problems: list[Problem] = []
    try:
        problems += _problems_of_name(model)
    except UserError as error:
        problems += error.problems
    problems += [unknown] if not problems and (unknown := unknown_tag(model)) else []
    for where, path in (("victim.model.checkpoint", model.checkpoint), ("victim.implant.checkpoint", poisoned)):
        if path and not is_file(path):
            problems.append(Problem(where, "there is no such file", str(path)))
        elif path:
            problems += _problems_of_kind(path, where)
    if problems:
        raise UserError(problems)
    activation_of(model)
    if poisoned:
        check_poisoned(model, poisoned)


def _problems_of_kind(path: Path, where: str) -> tuple[Problem, ...]:
    try:
        check_kind(path, where)
    except UserError as error:
        return error.problems
    return ()


def check_attention(model: ModelSettings) -> None:
    """Refuse a model whose text tower pools in a way that attention relevance cannot be read through.

    Raises:
        UserError: with the defense's setting that needs no attention.
    """
    text = model_config(model.name)["text_cfg"]
    field = "hf_pooler_type" if text.get("hf_model_name") else "pool_type"
    pool = text.get(field)
    if pool in {"none", "max_pooler"}:
        advice = "`attribution: gradient` and `random` look at no attention"
        message = f"cannot be read from the text tower of {model.name}, which pools by `{field}: {pool}`"
        raise UserError(Problem("defense.attribution", message, "chefer", advice))


def _problems_of_name(model: ModelSettings) -> Iterator[Problem]:
    """Yield what is missing to build a model of this name; `UserError` if there is none."""
    needed = needs_transformers(model.name)
    if needed and not find_spec("transformers"):
        advice = "pip install 'ubt-sweeper[transformers]', on every node"
        yield Problem("victim.model.name", "needs the package `transformers` for its text", model.name, advice)
    if model.folder and not (model.checkpoint or model.random_weights or model.weights_file):
        advice = f"put {WEIGHTS_FILE} beside {CONFIG_FILE}, or give `checkpoint`"
        yield Problem("victim.model.name", "the folder holds no weights", model.name, advice)
