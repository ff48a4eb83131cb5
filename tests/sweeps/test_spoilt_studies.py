"""Studies spoilt at random, planned through the command line: exit 0 or 2, never a traceback.

`benchmarks/fuzz_studies.py` runs thousands of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from study_mutations import trees, write_spoilt

from sweeps.cli.app import main

SEED = 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UBT_STORE", str(tmp_path / "store"))
    return tmp_path


def test_in_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    known, statuses = trees(), set[int]()
    for number in range(80):
        monkeypatch.setattr("sys.argv", ["ubt", "plan", *write_spoilt(folder, number, known, SEED)])
        try:
            main()
        except SystemExit as ended:
            statuses.add(int(ended.code or 0))
        assert statuses <= {0, 2}, number
    assert statuses == {0, 2}
    assert "Traceback" not in capsys.readouterr().err


def test_by_the_command(folder: Path) -> None:
    known = trees()
    for number in range(4):
        words = [word.encode("utf-8", "surrogatepass") for word in write_spoilt(folder, number, known, SEED)]
        program = "from sweeps.cli.app import main; main()"
        ended = subprocess.run([sys.executable, "-c", program, "plan", *words], capture_output=True, check=False)
        assert ended.returncode in (0, 2), number
        assert b"Traceback" not in ended.stderr
