"""Further measures of a defended model, as configured. Each is one stage behind `evaluate`. Loads no torch.

A new measure is its settings here with a row in `MEASURES`, and its stage with a row in `ubt.stages.table`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ubt.config import Config


class Measure(Config):
    """A measure as configured. Its `kind` is the name of its stage, whose key depends on these settings only."""

    kind: str


class Retrieval(Measure):
    """Image–text retrieval: recall at 1 and at 5, in both directions."""

    kind: Literal["retrieval"] = "retrieval"
    pairs: int = Field(default=500, ge=2)
    """Clean training pairs that are searched, drawn by the trial's seed; all if there are fewer."""


class LinearProbe(Measure):
    """A linear classifier on the frozen image embeddings: does the image tower alone still know the trigger?"""

    kind: Literal["linear_probe"] = "linear_probe"
    inverse_regularisation: float = Field(default=1.0, gt=0)
    """Scikit-learn's `C`: the larger, the less the classifier's weights are held small."""
    iterations: int = Field(default=1000, ge=1)
    """Steps of L-BFGS at most."""


class Rebound(Measure):
    """A short benign fine-tuning of the defended model: does the backdoor come back?"""

    kind: Literal["rebound"] = "rebound"
    pairs: int = Field(default=1000, ge=2)
    """Clean pairs to fine-tune on, drawn by the trial's seed; all if there are fewer."""
    epochs: int = Field(default=3, ge=1)
    """Passes over them."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Highest learning rate of AdamW; it decays to zero along a cosine."""
    batch_size: int = Field(default=64, ge=2)
    """Pairs a step; each is told apart from the others of its batch."""


class PacBayes(Measure):
    """The quantity of the paper's Theorem 1: how far the defense has gone from the poisoned model."""

    kind: Literal["pac_bayes"] = "pac_bayes"
    variance: float = Field(default=1e-4, gt=0)
    """Variance σ² of each weight, of prior and posterior alike."""
    delta: float = Field(default=0.05, gt=0, lt=1)
    """Probability δ with which the bound may fail."""


MEASURES: tuple[type[Measure], ...] = (Retrieval, LinearProbe, Rebound, PacBayes)


def _by_name(given: object) -> object:
    """Let a bare name stand for the measure with its default settings."""
    return {"kind": given} if isinstance(given, str) else given


class _NamesToo:
    """Says in the JSON schema, which editors check by, that a bare name will do."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        return {**schema, "oneOf": [*schema["oneOf"], {"enum": list(schema["discriminator"]["mapping"])}]}


def _distinct(measures: tuple[Measure, ...]) -> tuple[Measure, ...]:
    names = [measure.kind for measure in measures]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each measure may be asked for once; more than once: {', '.join(twice)}")
    return measures


if TYPE_CHECKING:
    Measures = tuple[Measure, ...]
else:
    _Spelt = Annotated[Union[MEASURES], Field(discriminator="kind")]  # noqa: UP007 — built from the table
    Measures = Annotated[
        tuple[Annotated[_Spelt, BeforeValidator(_by_name), _NamesToo()], ...], AfterValidator(_distinct)
    ]
