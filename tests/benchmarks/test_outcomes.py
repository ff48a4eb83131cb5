"""`benchmarks/search/outcomes.py`: a table keeps the victims that a folder lacks, and takes those that it has."""

import gzip
import shutil
import sys
from collections import Counter
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from ubt.trials.record import State

FOLDER = Path(__file__).parents[2] / "benchmarks" / "search"


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield import_module("outcomes")
    for name in ("outcomes", "grid"):  # names of scripts, which others may have too
        sys.modules.pop(name, None)


def _records(outcomes: ModuleType, asr: float, least: int = 0) -> list[SimpleNamespace]:
    """Return a record of each configuration of the grid but the first so many."""
    found = []
    for at, values in enumerate(product(*outcomes.space_of("grid").values())):
        config: dict[str, object] = {}
        for path, value in zip(outcomes.space_of("grid"), values, strict=True):
            part, name = path.split(".")
            config.setdefault(part, {})[name] = value
        epochs = [("unlearn", SimpleNamespace(val=SimpleNamespace(asr=asr, ca=0.7))) for _ in range(5)]
        stages = [SimpleNamespace(stage=name, seconds=9.0) for name in outcomes.STAGES]
        about = {"state": State.DONE, "poisoned_val": SimpleNamespace(ca=0.75), "trial": f"t{at:04d}"}
        found.append(SimpleNamespace(config=config, epochs=epochs, stages=stages, **about))
    return found[least:]


def _rows(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def test_a_table_keeps_what_a_folder_lacks(outcomes: ModuleType, tmp_path: Path) -> None:
    before = FOLDER / "grid.csv.gz"
    shutil.copy(before, tmp_path / "grid.csv.gz")
    counts = outcomes.write("grid", [], tmp_path / "grid.csv.gz")
    assert sorted(_rows(tmp_path / "grid.csv.gz")) == sorted(_rows(before))
    assert counts["badnets", 0] == 288


def test_a_victim_of_the_folder_stands_in_the_place_of_the_tables(
    outcomes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "grid.csv.gz"
    shutil.copy(FOLDER / "grid.csv.gz", path)
    monkeypatch.setattr(outcomes, "read_records", lambda _: _records(outcomes, 0.123))
    counts = outcomes.write("grid", [("badnets", 1, tmp_path), ("sig", 4, tmp_path)], path, timed=False)
    rows = [row.split(",") for row in _rows(path)[1:]]
    assert Counter((row[0], int(row[1])) for row in rows) == counts
    taken = [row for row in rows if (row[0], row[1]) in {("badnets", "1"), ("sig", "4")}]
    assert {row[-6] for row in taken} == {"0.12300"}
    assert len(taken) == 2 * 288
    monkeypatch.setattr(outcomes, "HERE", tmp_path)
    known = {(one.attack, one.seed): one for one in outcomes.read("grid")}
    assert known["sig", 4].stages[0][0][2] == known["badnets", 0].stages[0][0][2]  # seconds of the pieces that have any


def test_a_piece_that_has_just_begun_does_not_displace_a_whole_one(
    outcomes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "grid.csv.gz"
    shutil.copy(FOLDER / "grid.csv.gz", path)
    monkeypatch.setattr(outcomes, "read_records", lambda _: _records(outcomes, 0.123, least=200))
    assert outcomes.write("grid", [("badnets", 0, tmp_path)], path)["badnets", 0] == 288
    assert sorted(_rows(path)) == sorted(_rows(FOLDER / "grid.csv.gz"))
