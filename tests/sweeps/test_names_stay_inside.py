"""Names in studies and records become parts of paths: none leads out of its folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps.run.folder import new_run
from sweeps.study.config import StudyConfig
from ubt.trials.record import State, TrialRecord, write_record

PARTS = st.sampled_from(["..", ".", "/", "\\", "\0", "\n", "~", "a", "", " ", "…", "C:", "t0000"])
NAMES = st.lists(PARTS, max_size=4).map("/".join) | st.lists(PARTS, max_size=3).map("".join) | st.text(max_size=6)
OUT = Path("/home/ann/runs")


@given(NAMES)
def test_a_study_s_run_lies_in_the_folder_of_runs(name: str) -> None:
    with suppress(ValidationError):
        study = StudyConfig.model_validate({"name": name, "search": {"design": "list", "trials": [{}]}})
        assert Path(os.path.normpath(new_run(OUT, study.name).path)).parent == OUT


@given(NAMES)
def test_a_trial_s_record_lies_in_the_folder_of_records(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "records"
    tree = {"study": "toy", "number": 0, "seed": 0, "config": {}, "changes": {}, "state": State.RUNNING}
    with suppress(ValidationError):
        record = TrialRecord.model_validate({**tree, "trial": name})
        assert write_record(folder, record).resolve().parent == folder.resolve()
