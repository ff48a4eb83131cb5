"""GELU or QuickGELU: which of the two a model's weights were trained with. Loads no torch.

open_clip builds a network as its name says and only warns if the weights want another activation; every figure would
then be of another network (open_clip #771). Its tags say what they want, in a module that loads torch: `tags.json` has
what planning needs of it, and `ubt.models.build` checks the one against the other.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from ubt.common.errors import Problem, UserError
from ubt.models.settings import LOCAL_DIR, ModelSettings, model_config, model_files
from ubt.models.weight_files import Activation, activation_in, activation_said_by

LABELS: dict[Activation, str] = {"gelu": "GELU", "quickgelu": "QuickGELU"}

_Kind = Literal["published", "quickgelu", "normalised"]

_TWIN = "-quickgelu"
"""Ends the names of architectures that open_clip has with both activations."""


def named_activation(name: str) -> Activation:
    """Return the activation that open_clip builds a model of this name with."""
    return activation_in(model_config(name))


def is_ambiguous(name: str) -> bool:
    """Return whether weights under this name are published with both activations, so that it does not say which."""
    return f"{name}{_TWIN}" in model_files()


def activation_of(model: ModelSettings) -> Activation:
    """Return the activation that a model is to be built with.

    Raises:
        UserError: if it cannot be known and the study does not say it, or what is said contradicts itself.
    """
    claims = _claims(model)
    if len(set(claims.values())) > 1:
        text = ", ".join(f"{who} {LABELS[activation]}" for who, activation in claims.items())
        where = "activation" if model.activation != "auto" else "name"
        advice = "what the weights were trained with is right: leave `activation` out, or take the name without or with"
        raise UserError(
            Problem(f"victim.model.{where}", f"contradicts the weights: {text}", advice=f"{advice} `{_TWIN}`")
        )
    if not claims and model.checkpoint and is_ambiguous(model.name):
        raise UserError(_unknown(model.name, model.checkpoint))
    return next(iter(claims.values()), named_activation(model.name))


def check_poisoned(model: ModelSettings, poisoned: Path) -> None:
    """Refuse a poisoned checkpoint that the clean model's network is the wrong one for: both have to be one network.

    Raises:
        UserError: if its activation is another one, or neither model says which.
    """
    built, said = activation_of(model), activation_said_by(poisoned)
    if said and said != built:
        message = f"was trained with {LABELS[said]}, and the clean model computes with {LABELS[built]}"
        advice = f"give a clean model of the same kind, or say `victim.model.activation: {said}`"
        raise UserError(Problem("victim.implant.checkpoint", message, str(poisoned), advice))
    weightless = model.trained_here or model.random_weights
    if not said and weightless and model.activation == "auto" and is_ambiguous(model.name):
        raise UserError(_unknown(model.name, poisoned))


def what_differs(model: ModelSettings) -> dict[str, JsonValue]:
    """Return what changes a model's results beside its own fields: part of keys, and empty where it changes nothing.

    So models that were always computed as they are now keep their keys.

    Raises:
        UserError: as `activation_of`.
    """
    activation = activation_of(model)
    found: dict[str, JsonValue] = {} if activation == named_activation(model.name) else {"activation": activation}
    return {**found, "normalised": "as the tag says"} if _has("normalised", model) else found


def model_described_by(settings: JsonValue, folder: Path | None = None, **changes: object) -> ModelSettings:
    """Return the model that a stage's settings describe, with `changes`.

    They say its activation only where the name does not (`what_differs`), and of a checkpoint and of a model's `folder`
    the content, not the place: give these, or `random_weights=True` for the network alone.
    """
    assert isinstance(settings, dict)  # noqa: S101 — `ubt.engine.spec.of_model` made them
    settings = {**settings, "name": f"{LOCAL_DIR}{folder}"} if folder else settings
    fields = {name: value for name, value in settings.items() if name in ModelSettings.model_fields}
    return ModelSettings.model_validate({"activation": named_activation(str(fields["name"])), **fields, **changes})


def _claims(model: ModelSettings) -> dict[str, Activation]:
    """Return who says what; a plain name says nothing."""
    claims: dict[str, Activation] = {}
    if model.activation != "auto":
        claims["the study says"] = model.activation
    if named_activation(model.name) == "quickgelu":
        claims["the name says"] = "quickgelu"
    elif _has("quickgelu", model):
        claims["the tag's weights want"] = "quickgelu"
    said = activation_said_by(model.weights_file) if model.weights_file else None
    if said:
        claims["the checkpoint's want"] = said
    return claims


def _unknown(name: str, path: Path) -> Problem:
    message = f"must be said: weights of {name} are trained with GELU or with QuickGELU, and {path.name} does not tell"
    advice = (
        "`quickgelu` for weights of OpenAI, of CleanCLIP's or BadCLIP's code, or tuned from these; "
        f"`gelu` for what open_clip trained as `{name}`"
    )
    return Problem("victim.model.activation", message, "auto", advice)


def unknown_tag(model: ModelSettings) -> Problem | None:
    """Return the mistake of a tag that open_clip has no weights under, as far as it is known without torch.

    Of another release of open_clip than the table's, which may have more tags, only building the model tells.
    """
    if not model.pretrained or _has("published", model) or version("open_clip_torch") != _tags()["open_clip"]:
        return None
    tags = _named(model.name, "published")
    close = difflib.get_close_matches(model.pretrained, tags, n=1)
    advice = f"did you mean `{close[0]}`?" if close else "or give weights in a file as `checkpoint`"
    allowed = ", ".join(tags) or "none, as open_clip has no weights for this name"
    return Problem("victim.model.pretrained", f"unknown tag; allowed: {allowed}", model.pretrained, advice)


def _has(kind: _Kind, model: ModelSettings) -> bool:
    return bool(model.pretrained) and model.pretrained in _named(model.name, kind)


def _named(name: str, kind: _Kind) -> list[str]:
    tags: list[str] = _tags()[kind].get(name, [])
    return tags


@cache
def _tags() -> dict[str, Any]:
    """Return the table: the release of open_clip that it was made from, and for each kind of tags name → tags.

    The kinds are all that are published, those whose weights want QuickGELU under a name that says GELU, and those with
    other pixel means.
    """
    found: dict[str, Any] = json.loads(Path(__file__).with_name("tags.json").read_text())
    return found
