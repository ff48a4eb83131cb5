"""The front on the report's page: names, chances, and what differs from the choice."""

from dataclasses import replace

import pytest

from analysis.findings import find
from analysis.front.page import front_table
from analysis.opening.words import opening
from analysis.summary import summarise
from ubt.trials.labels import TrialLabel
from ubt.trials.record import EpochRecord, StageRecord

EPOCHS, SAMPLES = "defense.unlearn_epochs", "defense.unlearn_samples"


def cells(findings):
    table = front_table(findings)
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, row, strict=True)) for row in table.rows]


def test_each_member_has_its_chance_and_whether_it_differs_from_the_choice(trial, run_of):
    other, far = {SAMPLES: 8}, {SAMPLES: 16}
    rows = cells(
        find(run_of(trial(0), trial(1, asr=0.105, ca=0.81, changes=other), trial(2, asr=0.4, ca=0.9, changes=far)))
    )
    assert [row["against the choice"].text for row in rows] == ["–", "not distinguishable", "differs"]
    assert rows[0]["trial"].tag == "chosen"
    assert rows[2]["chance"].text == "100%"


def test_a_run_without_an_attack_has_neither(trial, run_of):
    table = front_table(find(run_of(trial(0, asr=None))))
    assert "chance" not in [column.title for column in table.columns]


def test_an_earlier_epoch_says_of_which_trial_it_is_until_a_trial_ends_at_it(trial, rates, run_of):
    epochs = tuple(EpochRecord(epoch=at, seconds=1, val=rates(*p)) for at, p in enumerate([(0.1, 0.81), (0.3, 0.7)], 1))
    stages = (StageRecord(stage="unlearn", key="u", reused=False, seconds=1, epochs=epochs),)
    long = trial(0, asr=0.3, ca=0.7, changes={EPOCHS: 2}, stages=stages)
    found = find(replace(run_of(long), epochs="every"))
    (row,) = cells(found)
    assert (row["trial"].text, row["trial"].tag, row["test ASR"].text) == ("trial-0@1", "chosen", "–")
    assert "unlearn_epochs\u00a0=\u00a01" in row["changes to the base"].text
    detail = opening(found, summarise(found)).detail
    assert "Measured on the validation split" in detail
    assert "trial-0@1 is an earlier epoch: no trial has judged it on the test split yet" in detail

    stages = tuple(stage.model_copy(update={"epochs": epochs[:1]}) for stage in stages)
    short = trial(1, asr=0.1, ca=0.81, changes={EPOCHS: 1}, stages=stages)
    short = short.model_copy(update={"label": TrialLabel(epoch_of="trial-0@1")})
    found = find(replace(run_of(long, short), epochs="every"))
    (row,) = cells(found)
    assert (row["trial"].text, row["test ASR"].text) == ("trial-1", "11.0%")
    assert "trial-1 is trial-0 after epoch 1." in opening(found, summarise(found)).detail


@pytest.mark.parametrize(
    ("course", "names"),
    [([(0.2, 0.9), (0.1, 0.8)], ["trial-0", "trial-0@1"]), ([(0.1, 0.8), (0.2, 0.9)], ["trial-0@1", "trial-0"])],
)
def test_of_a_trial_and_its_earlier_epoch_on_the_front_only_the_choice_is_marked(trial, rates, run_of, course, names):
    epochs = tuple(EpochRecord(epoch=at, seconds=1, val=rates(*point)) for at, point in enumerate(course, 1))
    stages = (StageRecord(stage="unlearn", key="u", reused=False, seconds=1, epochs=epochs),)
    asr, ca = course[-1]
    long = trial(0, asr=asr, ca=ca, changes={EPOCHS: 2}, stages=stages)
    found = find(replace(run_of(long), epochs="every", ca_floor=0.5))
    assert [(row["trial"].text, row["trial"].tag) for row in cells(found)] == list(
        zip(names, ["chosen", ""], strict=True)
    )
