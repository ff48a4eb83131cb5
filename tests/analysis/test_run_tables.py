"""A run as a notebook sees it: tables, figures, and what they say when there is nothing to show."""

import re
import subprocess
import sys

import plotly.graph_objects as go
import pytest

import analysis
from analysis.run import Run
from ubt.common.errors import UserError

SAMPLES = "defense.unlearn_samples"


@pytest.fixture
def run(run_folder, trial):
    """Three configurations, of which the second has two seeds, and a failed trial."""
    records = [
        trial(0, asr=0.3, ca=0.82),
        *(trial(1 + seed, seed=seed, asr=0.1 + 0.1 * seed, ca=0.81, changes={SAMPLES: 8}) for seed in (0, 1)),
        trial(3, asr=0.0, ca=0.5, changes={SAMPLES: 512}),
        trial(4, state="FAILED", changes={SAMPLES: 16}),
    ]
    return analysis.load_run(run_folder(*records))


def test_what_is_public_is_there_and_has_an_example():
    for name in analysis.__all__:
        public = getattr(analysis, name)
        assert ">>>" in (public.__doc__ or "") or name == "Report", name


def test_a_run_says_what_it_is(run):
    assert (run.name, run.folder.name, run.ca_floor) == ("toy", "run", 0.02)
    assert repr(run) == "<Run toy: 5 trials, 4 done and 1 failed>"


def test_trials_have_a_line_each_with_settings_by_their_dotted_paths(run):
    assert list(run.trials["trial"]) == [f"trial-{number}" for number in range(5)]
    assert list(run.trials[SAMPLES]) == [64, 8, 8, 512, 16]


def test_configurations_are_means_over_seeds_and_the_front_is_some_of_them(run):
    table = run.configurations.set_index("trial")
    assert list(table["seeds_done"]) == [1, 2, 1, 0]
    assert table.loc["trial-1", "val_asr"] == pytest.approx(0.15)
    assert list(run.front["trial"]) == ["trial-3", "trial-1", "trial-0"]
    assert list(run.front.columns) == [*run.configurations.columns, "front_chance", "like_chosen"]


def test_the_choice_is_a_line_of_the_configurations(run):
    assert run.chosen["trial"] == "trial-1"
    assert run.summary.chosen.trial == "trial-1"


def test_stages_have_a_line_each_in_the_order_in_which_they_ran(run):
    first = run.stages[run.stages["trial"] == "trial-0"]
    assert list(first["stage"]) == ["suspect", "unlearn"]
    assert list(first["reused"]) == [True, False]
    assert list(first["saved_seconds"]) == [10, 0]
    assert first.iloc[0]["diagnostics.recall"] == 0.5
    assert len(run.stages) == 4 * 2


def test_epochs_have_a_line_each_with_the_rates_after_it(run):
    last = run.epochs[run.epochs["trial"] == "trial-0"].iloc[-1]
    assert (last["stage"], last["epoch"], last["position"], last["val_asr"]) == ("unlearn", 2, 2, 0.3)
    assert last["val_asr_low"] < 0.3 < last["val_asr_high"]
    assert (last["test_asr"], last["front"]) == (0.31, "trial-0" in set(run.front["trial"]))
    assert len(run.epochs) == 4 * 2


@pytest.mark.parametrize("table", ["stages", "epochs"])
def test_every_column_is_described(run, table):
    described = set(re.findall(r"`([^`]+)`", getattr(Run, table).__doc__))
    rates = {name for name in getattr(run, table) if name.startswith(("val_", "test_"))}
    assert {name for name in getattr(run, table) if "." not in name} - rates <= described


def test_a_run_of_one_defense_has_no_comparison(run):
    assert run.comparison is None
    assert run.comparison_markdown == ""


def test_a_run_of_several_has_a_line_for_each_on_each_attack(run_folder, trial):
    other = trial(1, asr=0.5, changes={"defense": {"kind": "finetune"}})
    run = analysis.load_run(run_folder(trial(0), other))
    assert set(run.comparison["defense"]) == {"no defense", "UBT", "fine-tuning"}
    assert run.comparison_markdown.startswith("| defense | BadNets | time |")
    assert run.figure("comparison")._repr_png_().startswith(b"\x89PNG")


def test_without_a_done_trial_tables_are_empty_and_figures_say_why(run_folder, trial):
    run = analysis.load_run(run_folder(trial(0, state="FAILED", reason="no memory")))
    assert (len(run.trials), len(run.stages), len(run.epochs), len(run.front)) == (1, 0, 0, 0)
    assert run.chosen is None
    with pytest.raises(UserError, match="figure `front`: cannot be drawn from this run: No trial"):
        run.figure("front")


@pytest.mark.parametrize("name", ["front", "knobs", "epochs", "stages"])
def test_figures_are_plotlys(run, name):
    assert name in run.figures
    assert isinstance(run.figure(name), go.Figure)


def test_a_figure_that_does_not_exist_is_told_with_the_nearest(run):
    with pytest.raises(UserError, match=r"(?s)allowed: front, .*did you mean `epochs`"):
        run.figure("epoch")


def test_loading_a_run_and_its_tables_needs_no_torch(run):
    code = (
        f"import sys, analysis; run = analysis.load_run({str(run.folder)!r})\n"
        "run.trials, run.front, run.figure('front')\n"
        "print(*{'torch', 'ray', 'mlflow', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_a_run_is_made_of_what_was_read(run_of, trial):
    assert list(Run(run_of(trial(0))).trials["trial"]) == ["trial-0"]
