"""`ubt plan`: a plan as a table in a terminal, and the stages of a study as a picture."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from sweeps.planning.plan import DEFAULT_SECONDS, StagePlan, StudyPlan
from ubt.common.formatting import Align, duration, size, text_table
from ubt.engine.graph import Node, Pipeline, stage_order

COLUMNS: dict[str, Align] = {
    "stage": "left",
    **dict.fromkeys(("needed", "unique", "stored", "alone", "shared", "left"), "right"),
    "estimated from": "left",
}


def plan_text(plan: StudyPlan) -> str:
    """Return a plan as a table."""
    lines = [
        f"{plan.name}: {plan.design}, {_size_text(plan)} = {plan.trials} trials",
        f"images {plan.image_size_px} px · store {shlex.quote(plan.store)}",
        "",
        text_table(COLUMNS, [*map(_row, plan.stages), _sums(plan)]),
    ]
    if plan.chosen_later:
        lines += ["", "An adaptive search chooses as it goes; the table is its first trial, the base."]
    else:
        to_come = size(round(sum(stage.size_bytes for stage in plan.stages)))
        lines += [
            "",
            f"At least {duration(plan.wall_seconds)} on {plan.workers} workers (longest trial: "
            f"{duration(plan.critical_path_seconds)}); {to_come} of artifacts to come.",
        ]
    lines += ["", *(f"Note: {note}" for note in plan.notes)] if plan.notes else []
    return "\n".join(lines)


def _size_text(plan: StudyPlan) -> str:
    seeds = f"× {plan.seeds} seeds"
    if not plan.searched:
        return f"{plan.configurations} configurations {seeds}"
    return f"{plan.searched} configurations to choose from + {plan.configurations - plan.searched} {seeds}"


def _row(stage: StagePlan) -> tuple[str, ...]:
    source = f"{stage.measured} artifacts" if stage.measured else f"no artifact: {DEFAULT_SECONDS:.0f} s taken"
    counts = map(str, (stage.trials, stage.unique, stage.stored))
    times = map(duration, (stage.seconds_alone, stage.seconds_shared, stage.seconds_left))
    return (stage.stage, *counts, *times, source)


def _sums(plan: StudyPlan) -> tuple[str, ...]:
    alone, shared = (sum(getattr(s, f"seconds_{kind}") for s in plan.stages) for kind in ("alone", "shared"))
    counts = map(str, (plan.total, plan.unique, plan.stored))
    return ("all", *counts, *map(duration, (alone, shared, plan.seconds_left)), "")


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
