"""Evaluate the defended model on the validation split, which searches see, and the test split, which reports show."""

from __future__ import annotations

from ubt.engine.context import Output, PrivilegedContext


def run(context: PrivilegedContext) -> Output:
    """Return the model's `Rates` on both splits as facts."""
    clip, evaluator = context.clip("model"), context.evaluator
    return Output(facts={split: evaluator.rates(clip, split).as_json() for split in ("val", "test")})
