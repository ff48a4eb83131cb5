"""Are two runs of a study the same, bit for bit? Timings, commits and what was reused aside.

python benchmarks/same_records.py runs/demo runs/demo-2
"""

from __future__ import annotations

import sys
from pathlib import Path

from ubt.trials.record import TrialRecord, read_records

TIMINGS = {"seconds", "spent_seconds", "own_seconds", "started_at", "commit", "attempts", "peak_memory_bytes", "reused"}


def timeless(value: object) -> object:
    """Return a JSON value without its timings, at any depth."""
    if isinstance(value, dict):
        return {name: timeless(part) for name, part in value.items() if name not in TIMINGS}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def comparable(record: TrialRecord) -> object:
    """Return what must not differ: configuration, keys, every metric, every epoch's loss and rates."""
    return timeless(record.model_dump(mode="json"))


def main(one: str, other: str) -> int:
    """Compare and print; return 1 if anything differs."""
    first, second = ({r.trial: comparable(r) for r in read_records(Path(run) / "records")} for run in (one, other))
    differing = [trial for trial in first.keys() | second.keys() if first.get(trial) != second.get(trial)]
    print(f"{len(first)} and {len(second)} records, {len(differing)} differ {sorted(differing)}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
