"""Several runs side by side: which may be compared, what they chose, their common front, and what differs."""

import json
import re

import pandas as pd
import pytest

import analysis
from analysis.side_by_side.sides import names
from ubt.common.errors import UserError
from ubt.trials.record import EpochRecord, StageRecord, State

SAMPLES = "defense.unlearn_samples"
NASTY = "<b>bold</b>"


def problems(call):
    with pytest.raises(UserError) as raised:
        call()
    return [f"{one.where}: {one.message}" for one in raised.value.problems]


def test_runs_of_one_victim_have_a_common_front_and_differences_of_their_choices(run_in):
    first, second = run_in("a", (0.2, 0.81), (0.05, 0.7)), run_in("b", (0.1, 0.81), (0.3, 0.82))
    compared = analysis.compare_runs(first, second)
    runs = compared.runs.set_index("run")
    assert compared.notes == ()
    assert list(runs["chosen"]) == ["trial-0", "trial-0"]
    assert list(runs["front"]) == [2, 2]
    assert list(runs["on_common_front"]) == [1, 2], "(0.2, 0.81) is dominated by (0.1, 0.81)"
    assert runs["common_hypervolume"].nunique() == 1
    assert runs["common_hypervolume"].iloc[0] > runs["hypervolume"].max()
    assert pd.isna(runs.loc["a", "difference_asr"])
    assert runs.loc["b", ["held_against", "difference_split", "difference_seeds"]].to_list() == ["a", "test", 1]
    assert runs.loc["b", "difference_asr"] == pytest.approx(-0.1)
    assert runs.loc["b", "difference_asr_low"] < -0.1 < runs.loc["b", "difference_asr_high"]


def test_differences_of_choices_are_paired_by_seed(run_in, trial):
    def replicates(rates):
        return [trial(seed, seed=seed, asr=asr) for seed, asr in enumerate(rates)]

    first = run_in("a", records=replicates((0.1, 0.3, 0.5)))
    second = run_in("b", records=replicates((0.12, 0.33, 0.54)))
    row = analysis.compare_runs(first, second).runs.iloc[1]
    assert row["difference_seeds"] == 3
    assert row["difference_asr"] == pytest.approx(0.03)
    assert 0 < row["difference_asr_low"] < row["difference_asr_high"] < 0.06, "the seeds’ spread of 0.4 is not in it"


def test_hypervolume_grows_to_that_of_the_run_and_never_falls(run_in):
    compared = analysis.compare_runs(
        run_in("a", (0.9, 0.5), (0.2, 0.8), (0.3, 0.7), (0.1, 0.6)), run_in("b", (0.5, 0.5))
    )
    for name, grown in compared.growth.groupby("run"):
        assert grown["hypervolume"].is_monotonic_increasing
        assert grown["hypervolume"].iloc[-1] == compared.runs.set_index("run").loc[name, "hypervolume"]


def test_where_every_epoch_counts_their_points_are_compared(run_in, trial):
    def run(name, epochs):
        record = trial(0, asr=0.2, ca=0.6, changes={"defense.unlearn_epochs": 2})  # after epoch 1: 0.5, 0.7
        folder = run_in(name, records=[record], ca_floor=0.12)
        study = json.loads((folder / "study.json").read_text())
        study["objectives"]["epochs"] = epochs
        (folder / "study.json").write_text(json.dumps(study))
        return folder

    last, every = run("last", "last"), run("every", "every")
    runs = analysis.compare_runs(every, last).runs.set_index("run").loc[["last", "every"]]
    assert list(runs["front"]) == [1, 2]
    assert list(runs["hypervolume"]) == pytest.approx([0.8 * 0.6, 0.8 * 0.6 + 0.5 * 0.1])
    assert list(runs["on_common_front"]) == [1, 2]
    grown = analysis.compare_runs(last, every).growth.set_index("run")["hypervolume"]
    assert grown["every"] == pytest.approx(runs.loc["every", "hypervolume"])
    row = analysis.compare_runs(every, run("other", "every")).runs.iloc[1]
    assert row["chosen"] == "trial-0@1"
    assert (row["difference_split"], row["difference_asr"]) == ("val", 0.0), "no test rates of an earlier epoch"


def test_a_configuration_counts_from_its_last_seed_on(run_in, trial):
    replicates = [trial(n, seed=n, asr=0.1 * n, started_at=f"2026-01-01T00:00:0{9 - n}+00:00") for n in range(2)]
    grown = analysis.compare_runs(run_in("a", records=replicates), run_in("b", (0.5, 0.5))).growth
    assert list(grown[grown.run == "a"]["trial"]) == ["trial-1", "trial-0"], "in the order in which they ended"
    assert list(grown[grown.run == "a"]["hypervolume"] > 0) == [False, True]


def chain(epochs, key):
    """Return the record of a stage of so many epochs, each of which takes as many seconds as its number says."""
    done = tuple(EpochRecord(epoch=number, seconds=number, loss=1 / number) for number in range(1, epochs + 1))
    return StageRecord(stage="unlearn", key=key, reused=False, seconds=10.0 * sum(e.seconds for e in done), epochs=done)


def test_device_time_counts_a_shared_stage_and_a_shared_epoch_once(run_in, trial):
    victim = StageRecord(stage="implant", key="v", reused=False, seconds=100.0)
    records = [
        trial(0, stages=(victim, chain(2, "two"))),
        trial(1, stages=(victim.model_copy(update={"reused": True}), chain(3, "three")), changes={SAMPLES: 1}),
        trial(2, stages=(victim, chain(2, "two")), state=State.FAILED),
    ]
    grown = analysis.compare_runs(run_in("a", records=records), run_in("b", (0.5, 0.5))).growth
    own = grown[grown.run == "a"]
    assert list(own["shared_seconds"]) == [130.0, 160.0, 160.0]
    assert list(own["alone_seconds"]) == [130.0, 290.0, 420.0]


def test_device_time_does_not_depend_on_what_the_store_held(run_in, trial):
    victim = StageRecord(stage="implant", key="v", reused=False, seconds=100.0, spent_seconds=100.0)
    cold = run_in("cold", records=[trial(0, stages=(victim,))])
    warm = victim.model_copy(update={"reused": True, "spent_seconds": 0.0})
    runs = analysis.compare_runs(cold, run_in("warm", records=[trial(0, stages=(warm,))])).runs
    assert list(runs["shared_seconds"]) == [100.0, 100.0]
    assert list(runs["spent_seconds"]) == [100.0, 0.0]


def test_other_victims_are_not_held_against_each_other(run_in, trial):
    other = [trial(0, changes={"victim.attack.kind": "sig"}, trial="sig")]
    compared = analysis.compare_runs(run_in("a", (0.2, 0.8)), run_in("b", (0.1, 0.8)), run_in("c", records=other))
    assert list(compared.runs["victim"]) == [1, 1, 2]
    assert pd.isna(compared.runs["difference_asr"].iloc[2])
    assert pd.isna(compared.runs["on_common_front"].iloc[2])
    (note,) = compared.notes
    assert "a and b (BadNets); c (SIG)" in note


def test_the_keys_of_the_poisoned_model_say_whether_victims_are_equal(run_in, trial):
    def run(name, key, seed=0):
        return run_in(
            name,
            records=[trial(0, seed=seed, stages=(StageRecord(stage="implant", key=key, reused=False, seconds=1),))],
        )

    assert list(analysis.compare_runs(run("a", "k"), run("b", "k"), run("c", "other data")).runs["victim"]) == [1, 1, 2]
    assert list(analysis.compare_runs(run("a", "k"), run("d", "l", seed=1)).runs["victim"]) == [1, 1], (
        "another seed has"
    )


def test_equal_victims_that_came_out_differently_are_said(run_in, trial, rates):
    elsewhere = run_in("b", (0.1, 0.8), poisoned_val=rates(0.8, 0.82))
    (note,) = analysis.compare_runs(run_in("a", (0.2, 0.8)), elsewhere).notes
    assert "with seed 0 the poisoned model has ASR 0.900 CA 0.820 in a and ASR 0.800 CA 0.820 in b" in note


def test_other_seeds_and_trials_that_run_are_said(run_in, trial):
    going_on = run_in("b", records=[trial(0, seed=1), trial(1, state="RUNNING")])
    notes = analysis.compare_runs(run_in("a", (0.2, 0.8)), going_on).notes
    assert any("Seeds differ (a: 0; b: 0, 1)" in note for note in notes)
    assert "Not all trials have ended: b." in notes


def test_what_differs_is_listed_setting_by_setting(run_in):
    first = run_in("a", (0.2, 0.8), commit="abc", device="cpu")
    second = run_in("b", (0.2, 0.8), commit="def", device="cpu", ca_floor=0.05)
    table = analysis.compare_runs(first, second).settings
    assert table.to_numpy().tolist() == [
        ["study", "objectives.ca_floor", "0.02", "0.05"],
        ["made with", "code", "abc", "def"],
    ]
    assert (
        "No setting differs."
        in analysis.compare_runs(first, run_in("c", (0.1, 0.7), commit="abc", device="cpu")).markdown
    )


def test_effects_of_ablations_stand_side_by_side(run_in):
    compared = analysis.compare_runs(run_in("a", (0.1, 0.8), (0.2, 0.8)), run_in("b", (0.1, 0.8), (0.9, 0.8)))
    assert list(compared.effects["run"]) == ["a", "b"]
    assert list(compared.effects["asr"]) == pytest.approx([0.1, 0.8])
    html = compared._page()
    section = re.search('<section id="effects">.*?</section>', html, re.S)[0]
    assert "unlearn_samples 64 → 33" in section.replace("_<wbr>", "_")
    assert ">ASR</td>" in section, "the intervals of the two have nothing in common"


def test_a_comparison_of_defenses_and_a_run_without_results_have_their_rows(run_in, trial):
    compared = analysis.compare_runs(
        run_in("a", records=[trial(0, label="table:ubt/badnets")]), run_in("b", records=[trial(0, state="FAILED")])
    )
    assert list(compared.runs["chosen"].isna()) == [True, True]
    assert compared.growth.empty or not compared.growth["hypervolume"].any()
    assert "1 defense against 1 attack" in compared.notes[0]
    assert "nothing measured" in compared.notes[0]
    assert problems(lambda: compared.figure("fronts"))
    assert compared._page().count('class="absent"') >= 3


def test_tables_of_defenses_stand_side_by_side(run_in, trial, tmp_path):
    def table(name, asr, *kinds):
        records = [
            trial(n, asr=asr + n / 10, changes={"defense": {"kind": kind}}, label=f"table:{kind}/badnets")
            for n, kind in enumerate(kinds)
        ]
        return run_in(name, records=records)

    compared = analysis.compare_runs(table("a", 0.1, "ubt", "finetune"), table("b", 0.2, "ubt", "finetune", "par"))
    found = compared.defenses.set_index(["defense", "run"])["asr"]
    assert found["UBT", "a"] == pytest.approx(0.11), "on test"
    assert found["UBT", "b"] == pytest.approx(0.21)
    assert ("PAR", "a") not in found.index
    assert "a: BadNets; b: BadNets" in compared.markdown
    html = compared.write(tmp_path / "out").read_text(encoding="utf-8")
    assert '<section id="defenses">' in html
    assert (tmp_path / "out" / "defenses.csv").is_file()


def test_a_run_without_a_known_attack_can_be_compared(run_in, trial):
    compared = analysis.compare_runs(run_in("a", (None, 0.8)), run_in("b", (None, 0.7)))
    assert list(compared.runs["hypervolume"].isna()) == [True, True]
    assert "| – |" in compared.markdown


def test_the_folder_has_a_page_and_the_same_numbers_as_csv(run_in, tmp_path):
    compared = analysis.compare_runs(run_in("a", (0.2, 0.8)), run_in("b", (0.1, 0.8)))
    page = compared.write(tmp_path / "out")
    html = page.read_text(encoding="utf-8")
    for section in ("runs", "fronts", "growth", "settings"):
        assert f'id="{section}"' in html
    for link in re.findall('href="([a-z]+[.]csv)"', html):
        assert (tmp_path / "out" / link).is_file()
    assert list(pd.read_csv(tmp_path / "out" / "runs.csv")["run"]) == ["a", "b"]
    plots = re.findall('<script type="application/json">(.*?)</script>', html, re.S)
    fronts, growth = map(json.loads, plots)
    assert {trace["meta"]["split"] for trace in fronts["data"]} == {"val", "test"}
    assert len(growth["data"]) == 4, "two runs, with sharing and without"
    assert compared.write(tmp_path / "out") == page, "it is written anew"


def test_only_a_new_folder_or_an_earlier_comparison_is_written_to(run_in, tmp_path):
    compared = analysis.compare_runs(run_in("a", (0.2, 0.8)), run_in("b", (0.1, 0.8)))
    assert problems(lambda: compared.write(tmp_path / "a")) == ["--out: holds other files"]
    assert not (tmp_path / "a" / "index.html").exists()


def test_all_that_is_wrong_with_the_runs_is_reported_together(run_in, tmp_path):
    run = run_in("a", (0.2, 0.8))
    assert problems(lambda: analysis.compare_runs(run)) == ["RUN: there is nothing to hold it against"]
    found = problems(lambda: analysis.compare_runs(run, run, tmp_path / "nowhere"))
    assert found[0] == "RUN: is given twice"
    assert any("nowhere" in problem for problem in found)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/runs/demo", "y/runs/demo", "y/runs/demo-2"], ["x/runs/demo", "y/runs/demo", "demo-2"]),
        (["s3://bucket/runs/demo", "runs/demo"], ["bucket/runs/demo", "runs/demo"]),
    ],
)
def test_runs_are_called_by_the_shortest_ending_that_tells_them_apart(places, expected):
    assert names(places) == expected


def test_names_and_settings_cannot_bring_markup(run_in, trial):
    run = run_in("a", records=[trial(0, changes={"defense": {"kind": NASTY}})])
    html = analysis.compare_runs(run, run_in("b", (0.1, 0.8)))._page()
    assert NASTY not in html
