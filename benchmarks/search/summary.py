"""What replays show: regret against device-seconds, and when ours is where the best peer ends.

    python benchmarks/search/summary.py FILE.jsonl … [--figure docs/search.svg]

The best peer has the lowest median regret at the end of the budget. Of each repetition of ours it is looked up what
share of the budget it has spent when its regret is no more than that; one that never gets there counts as having
spent more than all of it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ubt.common.atomic_files import write_whole

OURS = "ours"
SHARES = (1 / 6, 1 / 3, 1 / 2, 1.0)
Case = tuple[str, str, int, bool]
"""Table, attack, seed, and whether stages are shared."""


def regret(row: dict[str, Any], share: float) -> float:
    """Return how far a search was from the best front when it had spent a share of its budget."""
    found = [regret for seconds, regret in row["course"] if seconds <= share * row["budget"]]
    return float(found[-1]) if found else 1.0


def reached(row: dict[str, Any], target: float) -> float:
    """Return what share of its budget a search had spent when its regret was this low; infinite if it never was."""
    found = (seconds for seconds, regret in row["course"] if regret <= target)
    return next(found, float("inf")) / float(row["budget"])


def cases(paths: list[Path]) -> dict[Case, dict[str, list[dict[str, Any]]]]:
    """Return the replays, each once."""
    found: defaultdict[Case, dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for path in paths:
        for row in map(json.loads, path.read_text().splitlines()):
            case = row["table"], row["attack"], row["seed"], row["shared"]
            found[case][row["searcher"]][row["repetition"]] = row
    return {case: {name: list(rows.values()) for name, rows in by.items()} for case, by in sorted(found.items())}


def table(of_case: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the lines of a table, the best at the end first."""
    ends = {name: median(regret(row, 1.0) for row in rows) for name, rows in of_case.items()}
    lines = ["| searcher | 1/6 | 1/3 | 1/2 | all of it | trials | searches |", "|---|---:|---:|---:|---:|---:|---:|"]
    for name in sorted(ends, key=lambda one: ends[one]):
        rows = of_case[name]
        cells = [f"{median(regret(row, share) for row in rows):.4f}" for share in SHARES]
        lines.append(f"| {name} | {' | '.join(cells)} | {median(len(row['course']) for row in rows):g} | {len(rows)} |")
    return lines


def compared(of_case: dict[str, list[dict[str, Any]]]) -> str:
    """Return when each of ours is where the best peer ends."""
    peers = {n: median(regret(row, 1.0) for row in rows) for n, rows in of_case.items() if not n.startswith(OURS)}
    best = min(peers, key=lambda one: peers[one])
    said = [f"best peer {best}, {peers[best]:.4f}"]
    for name, rows in of_case.items():
        if name.startswith(OURS):
            shares = [reached(row, peers[best]) for row in rows]
            low, high = (np.quantile(shares, q, method="inverted_cdf") for q in (0.25, 0.75))
            said.append(f"{name}: there after {median(shares):.2f} of the budget (quartiles {low:.2f} and {high:.2f})")
    return "; ".join(said)


def draw(found: dict[Case, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    """Draw the median regret over what is spent, a panel for each case."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, len(found), figsize=(5.2 * len(found), 3.8), squeeze=False, layout="constrained")
    shares = np.linspace(0.02, 1, 99)
    for axis, (case, by) in zip(axes[0], found.items(), strict=True):
        for name, rows in sorted(by.items(), key=lambda one: not one[0].startswith(OURS)):
            course = [median(regret(row, share) for row in rows) for share in shares]
            bold = name == OURS
            axis.plot(shares, course, label=name, linewidth=2.4 if bold else 1.2, color="black" if bold else None)
        table_name, attack, seed, shared = case
        axis.set_title(
            f"{table_name}, {attack}, seed {seed}: stages {'shared' if shared else 'not shared'}", fontsize=9
        )
        axis.set_yscale("log")
        axis.set_xlabel("device-seconds, of the budget")
        axis.set_ylabel("hypervolume regret, median")
    axes[0][0].legend(fontsize=7)
    figure.savefig(path)
    if path.suffix == ".svg":
        write_whole(path, "\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def main() -> None:
    """Print a table for each case, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    found = cases(given.files)
    for case, by in found.items():
        print("\n" + " ".join(map(str, case[:3])), "shared" if case[3] else "not shared")
        print("\n".join(table(by)))
        if any(name.startswith(OURS) for name in by) and not all(name.startswith(OURS) for name in by):
            print(compared(by))
    if given.figure:
        draw(found, given.figure)


if __name__ == "__main__":
    main()
