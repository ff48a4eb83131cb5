"""`ubt figures` and `ubt table` on the tiny trial, as a user would run them."""

import json

import pytest
from typer.testing import CliRunner

from sweeps.cli.app import app
from ubt.common.errors import UserError
from ubt.trials.record import write_record


@pytest.fixture
def run_folder(tiny_run, tmp_path):
    """A run folder of the tiny trial, whose artifacts are the real stages' own."""
    write_record(tmp_path / "run" / "records", tiny_run.record)
    (tmp_path / "run" / "study.json").write_text(json.dumps({"name": "tiny", "store": str(tiny_run.root)}))
    return tmp_path / "run"


def ubt(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


def test_figures_are_drawn_from_what_the_real_stages_left(run_folder, tmp_path):
    done = ubt("figures", run_folder, "--out", tmp_path / "paper")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "paper").iterdir()}
    assert names == {f"{name}.{ending}" for name in ("figure3", "figure5", "examples") for ending in ("png", "pdf")}
    assert "figure4 is left out. It needs two finished trials of UBT" in done.output
    assert "figure3: Without ABL's row" in done.output


def test_a_run_of_one_defense_has_its_front_and_one_of_several_their_table(run_folder, tiny_run):
    assert "| trial | changes | ASR | CA |" in ubt("table", run_folder).output
    assert isinstance(ubt("table", run_folder, "--of", "comparison").exception, UserError)
    latex = ubt("table", run_folder, "--format", "latex").output
    assert latex.startswith(f"% ubt table {run_folder} --format latex")
    assert "\\toprule" in latex
    other = tiny_run.record.model_copy(
        update={"trial": "other", "config": {**tiny_run.record.config, "defense": {"kind": "finetune"}}}
    )
    write_record(run_folder / "records", other)
    markdown, csv = ubt("table", run_folder), ubt("table", run_folder, "--csv")
    assert "| defense | BadNets ASR | BadNets CA |" in markdown.output
    assert csv.output.startswith("defense,attack,asr,asr_low")


def test_a_folder_that_is_no_run_is_a_mistake(tmp_path):
    for command in ("figures", "table"):
        assert isinstance(ubt(command, tmp_path).exception, UserError)
