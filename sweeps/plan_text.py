"""A plan as a table in a terminal."""

from __future__ import annotations

import shlex

from sweeps.cost import DEFAULT_SECONDS
from sweeps.plan import StagePlan, StudyPlan


def plan_text(plan: StudyPlan) -> str:
    """Return a plan as a table."""
    alone, shared = (sum(getattr(s, f"seconds_{kind}") for s in plan.stages) for kind in ("alone", "shared"))
    size_bytes = sum(stage.size_bytes for stage in plan.stages)
    lines = [
        f"{plan.name}: {plan.design}, {_size_text(plan)} = {plan.trials} trials",
        f"images {plan.image_size_px} px · store {shlex.quote(plan.store)}",
        "",
        f"{'stage':<12}{'needed':>8}{'unique':>8}{'stored':>8}{'alone':>10}{'shared':>10}{'left':>10}  estimated from",
    ]
    lines += [_row(stage) for stage in plan.stages]
    lines.append(
        f"{'all':<12}{plan.total:>8}{plan.unique:>8}{plan.stored:>8}"
        f"{span(alone):>10}{span(shared):>10}{span(plan.seconds_left):>10}"
    )
    if plan.design == "optuna":
        lines += ["", "An adaptive search chooses as it goes; the table is its first trial, the base."]
    else:
        lines += [
            "",
            f"At least {span(plan.wall_seconds)} on {plan.workers} workers (longest trial: "
            f"{span(plan.critical_path_seconds)}); {size_bytes / 1e9:.2f} GB of artifacts to come.",
        ]
    lines += ["", *(f"Note: {note}" for note in plan.notes)] if plan.notes else []
    return "\n".join(lines)


def _size_text(plan: StudyPlan) -> str:
    seeds = f"× {plan.seeds} seeds"
    if not plan.searched:
        return f"{plan.configurations} configurations {seeds}"
    return f"{plan.searched} configurations to choose from + {plan.configurations - plan.searched} {seeds}"


def _row(stage: StagePlan) -> str:
    source = f"{stage.measured} artifacts" if stage.measured else f"no artifact: {DEFAULT_SECONDS:.0f} s taken"
    return (
        f"{stage.stage:<12}{stage.trials:>8}{stage.unique:>8}{stage.stored:>8}"
        f"{span(stage.seconds_alone):>10}{span(stage.seconds_shared):>10}{span(stage.seconds_left):>10}  {source}"
    )


def span(seconds: float) -> str:
    """Return a span of time in the unit that suits it."""
    for unit, length in (("s", 1.0), ("min", 60.0)):
        if seconds < 100 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"
