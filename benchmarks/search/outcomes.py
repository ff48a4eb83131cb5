"""Tables of known outcomes: what each configuration of a space came to after each epoch, and how long its stages took.

    python benchmarks/search/outcomes.py demo runs/demogrid benchmarks/search/demo.csv.gz
    python benchmarks/search/outcomes.py grid FOLDER benchmarks/search/grid.csv.gz      # FOLDER: as of grid.py

A row a trial. A table that is there already keeps the victims that the folder lacks, so that pieces may be computed
in several folders. Seconds are those of the machine that computed them: a stage is taken to need the median over all
trials in which it is as much work, whichever the victim. `--untimed` leaves out the seconds of pieces that were
computed beside other work; what their stages take follows from those of the rest.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import grid
import numpy as np
from numpy.typing import NDArray

from sweeps.search.base import differing, identity
from sweeps.search.curves.prices import Prices
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.trials.record import State, TrialRecord, read_records

HERE = Path(__file__).parent
JUDGED, LAST = "unlearn", "evaluate"
STAGES = ("detect_clean", "suspect", "overfit", "select", "attribute", JUDGED, LAST)
"""What a search pays for: the victim is there, for everybody."""
Victim = tuple[str, int]
"""Attack and seed."""
Row = dict[str, str]
DEMO_SPACE = {
    "defense.suspicious_ratio": [0.01, 0.02, 0.03, 0.05, 0.1],
    "defense.overfit_epochs": [1, 3, 5],
    "defense.token_threshold": [0.02, 0.1, 0.2, 0.4],
    "defense.unlearn_samples": [16, 32, 64, 128],
}


def study_of(table: str, attack: str = "badnets") -> StudyConfig:
    """Return the study whose outcomes a table has; its search is of the table's space."""
    study = load_study("demo", ["tracking.enabled=false"]) if table == "demo" else grid.study(None, attack, 0)
    return StudyConfig.model_validate(
        {**study.model_dump(mode="json", exclude={"search"}), "search": {"design": "grid", "space": space_of(table)}}
    )


def space_of(table: str) -> dict[str, list[Any]]:
    """Return path → values."""
    return DEMO_SPACE if table == "demo" else grid.SPACE


def write(table: str, pieces: Iterable[tuple[str, int, Path]], path: Path, timed: bool = True) -> dict[Victim, int]:
    """Write the trials of some runs that are done, each with its attack and seed; return how many each victim has.

    Victims that the table has already are kept, unless a run has as many trials of one, or more.
    """
    victims: dict[Victim, list[Row]] = defaultdict(list)
    if path.is_file():
        for row in _rows(path):
            victims[row["attack"], int(row["seed"])].append(row)
    for attack, seed, folder in pieces:
        records = sorted(read_records(folder / "records"), key=lambda one: one.trial)
        done = [one for one in records if one.state is State.DONE and _inside(one, space_of(table))]
        if len(done) >= len(victims[attack, seed]):
            victims[attack, seed] = [_row(table, attack, seed, one, timed) for one in done]
    rows = [row for victim in sorted(victims) for row in victims[victim]]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")  # a table with other columns is refused
    writer.writeheader()
    writer.writerows(rows)
    with gzip.GzipFile(path, "wb", mtime=0) as stream:
        stream.write(text.getvalue().encode())
    return {victim: len(found) for victim, found in sorted(victims.items()) if found}


def _rows(path: Path) -> list[Row]:
    with gzip.open(path, "rt") as stream:
        return list(csv.DictReader(stream))


def _row(table: str, attack: str, seed: int, record: TrialRecord, timed: bool) -> Row:
    curve = [epoch.val for stage, epoch in record.epochs if stage == JUDGED and epoch.val]
    seconds = {stage.stage: stage.seconds for stage in record.stages}
    before = record.poisoned_val.ca if record.poisoned_val else float("nan")
    row = {"attack": attack, "seed": str(seed), **{knob: str(_value(record, knob)) for knob in space_of(table)}}
    row |= {"poisoned_ca": f"{before:.5f}"}
    row |= {f"s_{name}": f"{seconds[name]:.3f}" if timed else "" for name in STAGES}
    row |= {f"asr_{epoch}": f"{one.asr:.5f}" for epoch, one in enumerate(curve, 1)}
    return row | {f"ca_{epoch}": f"{one.ca:.5f}" for epoch, one in enumerate(curve, 1)}


def _value(record: TrialRecord, path: str) -> object:
    found: Any = record.config
    for name in path.split("."):
        found = found[name]
    return found


def _inside(record: TrialRecord, space: dict[str, list[Any]]) -> bool:
    return all(_value(record, path) in values for path, values in space.items())


@dataclass(frozen=True)
class Outcomes:
    """Those of one victim: one attack, one seed."""

    table: str
    attack: str
    seed: int
    points: list[dict[str, Any]]
    """Path → value."""
    asr: NDArray[np.float64]
    """`[N, E]`."""
    ca: NDArray[np.float64]
    poisoned_ca: float
    stages: list[list[tuple[str, str, float]]]
    """Name, key and seconds of each stage of each configuration."""
    study: StudyConfig

    @property
    def epochs(self) -> int:
        """Return how many epochs each has."""
        return self.asr.shape[1]

    def at(self, point: dict[str, Any]) -> int | None:
        """Return the place of a configuration; None if it is not known."""
        return self._places.get(_name(point))

    @property
    def _places(self) -> dict[str, int]:
        found = self.__dict__.get("places")
        if found is None:
            found = {_name(point): at for at, point in enumerate(self.points)}
            self.__dict__["places"] = found
        return found

    def changes(self, at: int) -> dict[str, Any]:
        """Return where a configuration differs from the study's base."""
        return differing(self.points[at], self.study.base)


def _name(point: dict[str, Any]) -> str:
    return identity({path: float(value) for path, value in point.items()})


def read(table: str) -> Iterator[Outcomes]:
    """Yield the outcomes of each victim of a table, for those values of the first setting that have all of the rest."""
    space = space_of(table)
    groups: defaultdict[Victim, dict[str, list[Row]]] = defaultdict(dict)
    first, *others = space
    for row in _rows(HERE / f"{table}.csv.gz"):
        groups[row["attack"], int(row["seed"])].setdefault(row[first], []).append(row)
    full = int(np.prod([len(space[path]) for path in others]))
    whole = {
        victim: [row for one in slices.values() if len(one) == full for row in one] for victim, slices in groups.items()
    }
    victims = [_OfVictim(table, *victim, rows) for victim, rows in whole.items() if rows]
    amounts: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
    for victim in victims:
        for row, work in zip(victim.rows, victim.work, strict=True):
            for name in STAGES:
                if seconds := row[f"s_{name}"]:
                    amounts[name, work[name][1]].append(float(seconds))
    for victim in victims:
        yield victim.outcomes({work: median(seconds) for work, seconds in amounts.items()})


class _OfVictim:
    """The rows of one victim, and what work each configuration is."""

    def __init__(self, table: str, attack: str, seed: int, rows: list[Row]) -> None:
        self.rows = rows
        self._named = table, attack, seed
        self._study = study_of(table, attack)
        self._points = [
            {path: next(v for v in values if float(row[path]) == float(v)) for path, values in space_of(table).items()}
            for row in rows
        ]
        prices = Prices(self._study)
        self.work = [prices.named(differing(point, self._study.base)) for point in self._points]
        """Of each: stage → its key, and the amount of its work."""

    def outcomes(self, seconds: Mapping[tuple[str, float], float]) -> Outcomes:
        """Return them, with what a stage takes by name and amount of work."""
        stages = [[(name, work[name][0], seconds[name, work[name][1]]) for name in STAGES] for work in self.work]
        epochs = range(1, 1 + sum(name.startswith("asr_") for name in self.rows[0]))
        asr, ca = (
            np.array([[float(row[f"{kind}_{e}"]) for e in epochs] for row in self.rows]) for kind in ("asr", "ca")
        )
        return Outcomes(*self._named, self._points, asr, ca, float(self.rows[0]["poisoned_ca"]), stages, self._study)


def main() -> None:
    """Write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["demo", "grid"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--untimed", action="store_true", help="leave out the seconds of the folder's pieces")
    given = parser.parse_args()
    pieces = [("badnets", 0, given.folder)] if given.table == "demo" else grid.computed(given.folder)
    for (attack, seed), trials in write(given.table, pieces, given.out, not given.untimed).items():
        print(f"{attack}-{seed}: {trials} trials")


if __name__ == "__main__":
    main()
