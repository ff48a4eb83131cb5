"""What came of computing a trial again, in words."""

from __future__ import annotations

from sweeps.replaying.compute import Replayed
from sweeps.replaying.differences import Difference, StageDifferences
from ubt.common.formatting import duration, text_table
from ubt.trials.rates import Rates

_SHOWN = 6
"""Differences of a stage that are printed; --json has all."""


def replayed_text(found: Replayed) -> str:
    """Return what came of computing a trial again, in words."""
    lines = [
        f"{found.run} {found.trial}, seed {found.seed}: computed again in {duration(found.seconds)}",
        "  study, seed, data and the code of every stage are those of the run",
    ]
    for check in found.checks:
        lines.append(f"  {_check_text(check.what, check.then, check.now, check.same)}")
    lines += ["", text_table({"stage": "left", "numbers": "left", "bits": "left"}, map(_stage_row, found.stages)), ""]
    lines += [f"  {split:<14} {_rates_text(*both)}" for split, both in found.rates.items() if any(both)]
    lines += [f"  it failed: {found.reason}"] if found.reason else []
    return "\n".join([*lines, "", *_conclusion(found)])


def _check_text(what: str, then: str, now: str, same: bool | None) -> str:
    if same:
        return f"{what}: {now}"
    return f"{what}: {now} (then: {then or 'not recorded'})"


def _stage_row(stage: StageDifferences) -> tuple[str, str, str]:
    differing = len(stage.differences)
    numbers = "same" if not differing else f"{differing} differ"
    bits = {"same": "same", "other": "other", "unknown": "not in the run's store"}[stage.artifact]
    return stage.stage, numbers, bits


def _rates_text(then: Rates | None, now: Rates | None) -> str:
    if then is None:
        return f"{now} (not measured then)"
    if now is not None and (then.asr, then.ca) == (now.asr, now.ca):
        return f"{now}, then and now"
    return f"{then} then, {now or 'not measured'} now"


def _conclusion(found: Replayed) -> list[str]:
    """Say whether what was to come out did; if not, where it begins to differ."""
    if found.same_bits:
        unknown = (
            f" of all that can be compared: the run's store does not have the artifacts of {', '.join(found.unknown)}"
            if found.unknown
            else ""
        )
        return [f"The same, bit for bit{unknown}."]
    lines = _first_differences(found)
    if found.expected == "bits":
        return [*lines, "Not the same: on this kind of device, with this torch, the same bits were to be expected."]
    others = ", ".join(check.what for check in found.checks if not check.same)
    said = f"not the same bits, as is to be expected with another or an unknown {others}"
    limit = f"{100 * found.tolerance:g} points"
    if found.as_expected:
        return [*lines, f"Within {limit}: rates are at most {100 * found.apart:.1f} points apart ({said})."]
    apart = "it ended otherwise" if found.apart == float("inf") else f"{100 * found.apart:.1f} points apart"
    return [*lines, f"Not within {limit}: {apart} ({said})."]


def _first_differences(found: Replayed) -> list[str]:
    first = next((stage for stage in found.stages if not stage.same), None)
    if first is None:
        return [f"  {_difference_text(one)}" for one in found.outcome]
    lines = [f"It begins to differ in stage `{first.stage}`:"]
    lines += [f"  {_difference_text(one)}" for one in first.differences[:_SHOWN]]
    more = len(first.differences) - _SHOWN
    lines += [f"  and {more} more"] if more > 0 else []
    return lines if first.differences else [*lines, "  its weights or tensors, by no number in the record"]


def _difference_text(one: Difference) -> str:
    return f"{one.where}: {one.then} then, {one.now} now"
