"""`ubt plan`: a plan as a table in a terminal, and the stages of a study as a picture."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from sweeps.planning.plan import StagePlan, StudyPlan, total
from ubt.common.formatting import Align, duration, size, text_table
from ubt.engine.graph import Node, Pipeline, stage_order

COLUMNS: dict[str, Align] = {
    "stage": "left",
    **dict.fromkeys(("needed", "unique", "stored", "alone", "shared", "left"), "right"),
    "estimated from": "left",
}

UNKNOWN = "unknown"


def plan_text(plan: StudyPlan) -> str:
    """Return a plan as a table, and what follows from it in words."""
    lines = [
        f"{plan.name}: {plan.design}, {_size_text(plan)} = {plan.trials} trials",
        f"images {plan.image_size_px} px · store {shlex.quote(plan.store)}",
        f"times for {'; '.join(plan.setups)}",
        "",
        text_table(COLUMNS, [*map(_row, plan.stages), _sums(plan)]),
        "",
    ]
    if plan.chosen_later:
        lines.append(
            f"The search chooses {plan.chosen_later} configurations as it goes; others, drawn at random, stand in here."
        )
    lines += _cost_lines(plan)
    if plan.every_epoch:
        each = UNKNOWN if plan.earlier_epoch_seconds is None else f"at most {duration(plan.earlier_epoch_seconds)}"
        lines.append(
            f"Front:   earlier epochs on it, or chosen, are run to their end then: a trial more of each, {each}"
        )
    lines += ["", *(f"Note: {note}" for note in plan.notes)] if plan.notes else []
    return "\n".join(lines)


def _cost_lines(plan: StudyPlan) -> list[str]:
    workers = f"{plan.workers} worker{'' if plan.workers == 1 else 's'}"
    if plan.unknown:
        what = "any stage" if len(plan.unknown) == len(plan.stages) else ", ".join(plan.unknown)
        lines = [
            f"Time:    unknown. Nothing on this store says how long {what} takes on such a model and device;",
            "         --calibrate measures it by a few batches, with --address on a cluster",
        ]
    else:
        lines = [
            f"Time:    {time_text(plan.seconds_left)} of stages; at least {time_text(plan.wall_seconds)} on {workers} "
            f"(longest chain: {time_text(plan.critical_path_seconds)})"
        ]
    if plan.gpus:
        held, price = _hours(plan.gpu_hours_held), "" if plan.price is None else f", which cost {plan.price:,.2f}"
        lines.append(f"GPUs:    {_hours(plan.gpu_hours)} of stages; {workers} hold theirs for {held}{price}")
    elif plan.price_per_gpu_hour is not None:
        lines.append("GPUs:    none (resources.gpus_per_trial is 0), so nothing to pay for them")
    decoded = f"{_size(plan.cache_bytes)} of decoded images on each machine"
    lines.append(f"Disk:    {_size(plan.store_bytes)} of artifacts to come; {decoded}")
    if plan.store_peak_bytes is not None:
        within = "" if plan.store_within_bytes is None else f", {_size(plan.store_within_bytes)} by its `store_budget`"
        needed = f"trials need {_size(plan.store_needed_bytes)} at a time"
        lines.append(f"Store:   {_size(plan.store_peak_bytes)} of this study at most{within}; {needed}")
    least = "" if plan.memory_bytes is None else "at least "
    lines.append(f"Memory:  {least}{_size(plan.memory_bytes)} for each worker{', on its GPU' if plan.gpus else ''}")
    return lines


def time_text(seconds: float | None) -> str:
    """Return seconds in words."""
    return UNKNOWN if seconds is None else duration(seconds)


def _hours(hours: float | None) -> str:
    return "an unknown time" if hours is None else f"{hours:,.1f} GPU-hours"


def _size(size_bytes: float | None) -> str:
    return "an unknown amount" if size_bytes is None else size(round(size_bytes))


def _size_text(plan: StudyPlan) -> str:
    seeds = f"× {plan.seeds} seeds"
    if not plan.searched:
        return f"{plan.configurations} configurations {seeds}"
    return f"{plan.searched} configurations to choose from + {plan.configurations - plan.searched} {seeds}"


def _row(stage: StagePlan) -> tuple[str, ...]:
    counts = map(str, (stage.trials, stage.unique, stage.stored))
    times = map(time_text, (stage.seconds_alone, stage.seconds_shared, stage.seconds_left))
    calibrated = "a calibration" if stage.seconds_alone is not None else ""
    return (stage.stage, *counts, *times, f"{stage.measured} artifacts" if stage.measured else calibrated)


def _sums(plan: StudyPlan) -> tuple[str, ...]:
    sums = (total(getattr(stage, f"seconds_{kind}") for stage in plan.stages) for kind in ("alone", "shared", "left"))
    return ("all", *map(str, (plan.total, plan.unique, plan.stored)), *map(time_text, sums), "")


COLUMN_PX, HEIGHT_PX, MARGIN_PX, MARK_PX = 120, 640, 70, 9


@dataclass(frozen=True)
class Mark:
    """One distinct piece of work in the picture."""

    node: Node
    x_px: float
    y_px: float
    trials: int
    """Trials that need it."""


def marks_of(pipelines: Sequence[Pipeline]) -> dict[str, Mark]:
    """Return key → mark: columns in the order of stages, rows in the order in which trials first need them."""
    trials = Counter(node.key for pipeline in pipelines for node in pipeline)
    columns: dict[str, dict[str, Node]] = {}
    for pipeline in pipelines:
        for node in pipeline:
            columns.setdefault(node.spec.name, {}).setdefault(node.key, node)
    ordered = [columns[name] for name in stage_order(pipelines)]
    return {
        key: Mark(node, MARGIN_PX + COLUMN_PX * place, _row_px(row, len(column)), trials[key])
        for place, column in enumerate(ordered)
        for row, (key, node) in enumerate(column.items())
    }


def draw_graph(pipelines: Sequence[Pipeline], stored: set[str]) -> str:
    """Return an SVG; work that the store has is hollow, and a mark says how many trials need it on hovering."""
    marks = marks_of(pipelines)
    width_px = 2 * MARGIN_PX + COLUMN_PX * (len({mark.x_px for mark in marks.values()}) - 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width_px} {HEIGHT_PX + 2 * MARGIN_PX}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        *_lines(marks),
        *(_shape(mark, key in stored) for key, mark in marks.items()),
        *_headings(marks),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _lines(marks: Mapping[str, Mark]) -> Iterable[str]:
    """Yield a line from each piece of work to the latest one that it needs; the others are behind that one."""
    for mark in marks.values():
        inputs = [marks[key] for key in mark.node.inputs.values()]
        if inputs:
            latest = max(inputs, key=lambda other: other.x_px)
            middle = (latest.x_px + mark.x_px) / 2
            yield (
                f'<path d="M{latest.x_px:.0f},{latest.y_px:.1f} C{middle:.0f},{latest.y_px:.1f} '
                f'{middle:.0f},{mark.y_px:.1f} {mark.x_px:.0f},{mark.y_px:.1f}" fill="none" stroke="#b8c4cc"/>'
            )


def _shape(mark: Mark, stored: bool) -> str:
    fill = "white" if stored else "#0072B2"
    settings = ", ".join(f"{name}={value}" for name, value in mark.node.settings.items() if not isinstance(value, dict))
    title = f"{mark.node.spec.name}: needed by {mark.trials} trials{', in the store' if stored else ''}\n{settings}"
    return (
        f'<circle cx="{mark.x_px:.0f}" cy="{mark.y_px:.1f}" r="{MARK_PX / 2}" fill="{fill}" stroke="#0072B2">'
        f"<title>{escape(title)}</title></circle>"
    )


def _headings(marks: Mapping[str, Mark]) -> Iterable[str]:
    for x_px in sorted({mark.x_px for mark in marks.values()}):
        column = [mark for mark in marks.values() if mark.x_px == x_px]
        needed = sum(mark.trials for mark in column)
        yield f'<text x="{x_px:.0f}" y="24" text-anchor="middle" font-weight="bold">{column[0].node.spec.name}</text>'
        yield f'<text x="{x_px:.0f}" y="42" text-anchor="middle" fill="#555">{len(column)} of {needed}</text>'


def _row_px(row: int, rows: int) -> float:
    return MARGIN_PX + HEIGHT_PX * (row + 0.5) / rows
