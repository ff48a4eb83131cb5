"""Are two runs of a study the same, bit for bit? Timings, commits and what was reused aside.

python benchmarks/same_records.py runs/demo runs/demo-2

The runs may be of different versions of this package: records are migrated on reading, and keys are compared through a
map, for a stage that is called otherwise has another key. Each key of one run must stand for one key of the other.
"""

from __future__ import annotations

import sys
from pathlib import Path

from analysis import load_run
from ubt.trials.rates import Rates
from ubt.trials.record import TrialRecord, read_records

TIMINGS = {"seconds", "spent_seconds", "own_seconds", "started_at", "commit", "attempts", "peak_memory_bytes", "reused"}
TIMINGS |= {"node", "ended_at", "computed_by"}
OTHERWISE = {"versions", "key", "version"}
SINCE_0_2 = {"gates", "classes", "per_class", "split", "subset", "clean_val"} | {
    "observed",
    "activation",
    "attribution_layers",
    "asked_as",
    "device_kind",
}
"""What records of before do not have."""
INTERVALS = {"ca_low", "ca_high", "asr_low", "asr_high"}
"""Ends of intervals, which a library may compute to other last digits; so may it the diagnostics."""


def timeless(value: object) -> object:
    """Return a JSON value without its timings, and without what is compared otherwise, at any depth."""
    if isinstance(value, dict):
        return {name: timeless(part) for name, part in value.items() if name not in TIMINGS | OTHERWISE | SINCE_0_2}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def comparable(record: TrialRecord) -> object:
    """Return what must not differ: configuration, every epoch's loss and rates, and which diagnostics there are."""

    def exact(value: object) -> object:
        if isinstance(value, dict):
            parts = {name: part for name, part in value.items() if name not in INTERVALS}
            return {name: sorted(part) if name == "diagnostics" else exact(part) for name, part in parts.items()}
        return [exact(part) for part in value] if isinstance(value, list) else value

    return exact(timeless(record.model_dump(mode="json")))


def keys_differ(first: dict[str, TrialRecord], second: dict[str, TrialRecord]) -> bool:
    """Return whether some key of one run stands for two of the other, stage by stage."""
    pairs = {
        (one.key, other.key)
        for trial in first.keys() & second.keys()
        for one, other in zip(first[trial].stages, second[trial].stages, strict=False)
    }
    return len(pairs) != len({one for one, _ in pairs}) or len(pairs) != len({other for _, other in pairs})


def largest_differences(first: dict[str, TrialRecord], second: dict[str, TrialRecord]) -> tuple[float, float, float]:
    """Return the largest difference of a rate, of an end of its interval, and of a diagnostic between the runs."""
    rates, ends, diagnostics = [0.0], [0.0], [0.0]
    for trial in first.keys() & second.keys():
        for one, other in zip(_rates(first[trial]), _rates(second[trial]), strict=False):
            for (name, a), (_, b) in zip(one, other, strict=True):
                if isinstance(a, float) and isinstance(b, float):
                    (ends if name in INTERVALS else rates).append(abs(a - b))
        for one, other in zip(first[trial].stages, second[trial].stages, strict=False):
            shared = one.diagnostics.keys() & other.diagnostics.keys()
            diagnostics += [abs(one.diagnostics[name] - other.diagnostics[name]) for name in shared]
    return max(rates), max(ends), max(diagnostics)


def _rates(record: TrialRecord) -> list[Rates]:
    ends = (record.poisoned_val, record.poisoned_test, record.val, record.test)
    return [rates for rates in (*ends, *(epoch.val for _, epoch in record.epochs)) if rates]


def main(one: str, other: str) -> int:
    """Compare and print; return 1 if anything differs."""
    first, second = ({record.trial: record for record in read_records(Path(run) / "records")} for run in (one, other))
    trials = sorted(first.keys() | second.keys())
    differing = [
        trial
        for trial in trials
        if trial not in first or trial not in second or comparable(first[trial]) != comparable(second[trial])
    ]
    choices = [chosen.trial if (chosen := load_run(run).summary.chosen) else None for run in (one, other)]
    keys = keys_differ(first, second)
    rates, ends, diagnostics = largest_differences(first, second)
    print(f"{len(first)} and {len(second)} records, {len(differing)} differ {differing}")
    print(
        f"largest difference of a rate {rates:.3g}, of an interval's end {ends:.3g}, of a diagnostic {diagnostics:.3g}"
    )
    print(f"keys: {'differ' if keys else 'each stands for one of the other run'}; chosen: {choices[0]}, {choices[1]}")
    return 1 if differing or keys or choices[0] != choices[1] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
