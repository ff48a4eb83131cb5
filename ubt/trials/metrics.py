"""Further metrics of a defended model, beside ASR and CA, as configured: a stage each. Loads no torch.

A new metric is its settings here, named in `METRICS.add`, and its stage; one of another distribution an entry point in
the group `ubt.metrics`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from ubt.common.errors import Problem, UserError
from ubt.common.registry import Registry
from ubt.config.base import ByKind, Function, StageConfig, kind_of
from ubt.defenses.base import Counts


class Metric(StageConfig):
    """A metric as configured. Its `kind` is the name of its stage, which knows the poison and puts out facts."""

    def check_counts(self, counts: Counts) -> None:
        """Refuse data that the metric cannot be measured on.

        Raises:
            UserError: saying what is lacking.
        """


def _need_two(metric: Metric, clean: int) -> None:
    if clean < 2:
        message = f"needs two clean pairs at least, and there are {max(clean, 0)}"
        raise UserError(Problem(f"metrics: {metric.kind}", message))


class Retrieval(Metric):
    """Image–text retrieval: recall at 1 and at 5, in both directions."""

    kind: Literal["retrieval"] = "retrieval"
    label: ClassVar[str] = "retrieval"
    needs: ClassVar[tuple[str, ...]] = ("model", "manifest", "pairs")
    run: ClassVar[Function] = "ubt.stages.evaluation:retrieval"
    diagnose: ClassVar[Function | None] = "ubt.stages.evaluation:diagnose_retrieval"
    work: ClassVar[Function | None] = "ubt.stages.work:retrieval"
    pairs: int = Field(default=500, ge=2)
    """Clean training pairs that are searched, drawn by the trial's seed; all if there are fewer."""

    def check_counts(self, counts: Counts) -> None:
        """Refuse data with less than two clean pairs in it; `UserError` saying so."""
        _need_two(self, counts.pairs - counts.poisoned)


class LinearProbe(Metric):
    """A linear classifier on the frozen image embeddings: does the image tower alone still know the trigger?"""

    kind: Literal["linear_probe"] = "linear_probe"
    label: ClassVar[str] = "linear probe"
    needs: ClassVar[tuple[str, ...]] = ("model", "manifest")
    run: ClassVar[Function] = "ubt.stages.evaluation:linear_probe"
    diagnose: ClassVar[Function | None] = "ubt.stages.evaluation:diagnose_linear_probe"
    work: ClassVar[Function | None] = "ubt.stages.work:linear_probe"
    seeded: ClassVar[bool] = False
    inverse_regularisation: float = Field(default=1.0, gt=0)
    """Scikit-learn's `C`: the larger, the less the classifier's weights are held small."""
    iterations: int = Field(default=1000, ge=1)
    """Steps of L-BFGS at most."""

    def check_counts(self, counts: Counts) -> None:
        """Refuse validation images of one class; `UserError` saying so."""
        if counts.val_classes < 2:
            message = "needs validation images of two classes at least"
            raise UserError(Problem(f"metrics: {self.kind}", message))


class Rebound(Metric):
    """A short benign fine-tuning of the defended model: does the backdoor come back?"""

    kind: Literal["rebound"] = "rebound"
    label: ClassVar[str] = "rebound"
    needs: ClassVar[tuple[str, ...]] = ("model", "manifest", "pairs")
    run: ClassVar[Function] = "ubt.stages.evaluation:rebound"
    diagnose: ClassVar[Function | None] = "ubt.stages.evaluation:diagnose_rebound"
    work: ClassVar[Function | None] = "ubt.stages.work:rebound"
    pairs: int = Field(default=1000, ge=2)
    """Clean pairs to fine-tune on, drawn by the trial's seed; all if there are fewer."""
    epochs: int = Field(default=3, ge=1, le=100_000)
    """Passes over them."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Highest learning rate of AdamW; it decays to zero along a cosine."""
    batch_size: int = Field(default=64, ge=2)
    """Pairs a step; each is contrasted with the others of its batch."""

    def check_counts(self, counts: Counts) -> None:
        """Refuse data with less than two clean pairs to train on; `UserError` saying so."""
        own = counts.pairs - counts.poisoned
        _need_two(self, own if counts.clean_pairs is None else counts.clean_pairs)


class PacBayes(Metric):
    """The quantity of the paper's Theorem 1: how far the defense has gone from the poisoned model."""

    kind: Literal["pac_bayes"] = "pac_bayes"
    label: ClassVar[str] = "PAC-Bayes term"
    needs: ClassVar[tuple[str, ...]] = ("model", "poisoned", "rates")
    run: ClassVar[Function] = "ubt.stages.evaluation:pac_bayes"
    diagnose: ClassVar[Function | None] = "ubt.stages.evaluation:diagnose_pac_bayes"
    work: ClassVar[Function | None] = "ubt.stages.work:pac_bayes"
    seeded: ClassVar[bool] = False
    variance: float = Field(default=1e-4, gt=0)
    """Variance σ² of each weight, of prior and posterior alike."""
    delta: float = Field(default=0.05, gt=0, lt=1)
    """Probability δ with which the bound may fail."""


class AsrAllImages(Metric):
    """ASR with the target class's own images counted in, as tables of other papers count it; beside ours, never in it.

    An image of the target class is a success already when the model is right, trigger or not: so the rate of a clean
    model is not 0 but about the share of that class, a tenth for ten classes.
    """

    kind: Literal["asr_all_images"] = "asr_all_images"
    label: ClassVar[str] = "ASR, target images included"
    needs: ClassVar[tuple[str, ...]] = ("model", "poisoned", "manifest", "rates")
    run: ClassVar[Function] = "ubt.stages.evaluation:asr_all_images"
    diagnose: ClassVar[Function | None] = "ubt.stages.evaluation:diagnose_asr_all_images"
    work: ClassVar[Function | None] = "ubt.stages.work:asr_all_images"
    seeded: ClassVar[bool] = False


METRICS: Registry[type[Metric]] = Registry("metric", "ubt.metrics", kind_of, __name__, Metric)
METRICS.add(Retrieval, LinearProbe, Rebound, PacBayes, AsrAllImages)


def _distinct(metrics: tuple[Metric, ...]) -> tuple[Metric, ...]:
    names = [metric.kind for metric in metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each metric may be asked for once; more than once: {', '.join(twice)}")
    return metrics


Metrics = Annotated[
    tuple[Annotated[Metric, ByKind(METRICS, bare_names=True)], ...],
    AfterValidator(_distinct),
]
"""Further metrics as configured; a bare name stands for its default settings."""
