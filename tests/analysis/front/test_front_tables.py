"""Every epoch as a table: which ones are on the front or chosen, and whose test rates they have."""

from dataclasses import replace

from analysis.findings import find
from analysis.front.tables import epochs_table
from ubt.trials.record import EpochRecord, StageRecord

EPOCHS, SAMPLES = "defense.unlearn_epochs", "defense.unlearn_samples"


def course(trial, rates, number, pairs, **fields):
    epochs = tuple(EpochRecord(epoch=at, seconds=1, val=rates(*pair)) for at, pair in enumerate(pairs, 1))
    before = StageRecord(stage="overfit", key="o", reused=False, seconds=1, epochs=(EpochRecord(epoch=1, seconds=1),))
    stage = StageRecord(stage="unlearn", key=f"u{number}", reused=False, seconds=3, epochs=epochs)
    changes = {EPOCHS: len(pairs), **fields.pop("changes", {})}
    asr, ca = pairs[-1]
    return trial(number, asr=asr, ca=ca, changes=changes, stages=(before, stage), **fields)


def test_an_epoch_has_the_test_rates_of_the_trial_that_ends_at_it(trial, rates, run_of):
    long = course(trial, rates, 0, [(0.5, 0.7), (0.05, 0.81), (0.3, 0.75)])
    short = course(trial, rates, 1, [(0.5, 0.7), (0.05, 0.81)])
    other = course(trial, rates, 2, [(0.5, 0.7), (0.2, 0.82)], changes={SAMPLES: 8})
    run = replace(run_of(long, short, other), epochs="every")
    table = epochs_table(find(run))
    assert list(table["stage"]) == [
        "overfit",
        *3 * ["unlearn"],
        "overfit",
        *2 * ["unlearn"],
        "overfit",
        *2 * ["unlearn"],
    ]
    first = table[table["trial"] == "trial-0"]
    assert list(first["position"].dropna()) == [1, 2, 3]
    assert list(first["test_asr"].fillna(-1).round(3)) == [-1, -1, 0.06, 0.31]
    assert list(first["front"]) == [False, False, True, False]
    assert list(first["chosen"]) == [False, False, True, False]
    assert list(table[table["trial"] == "trial-2"]["front"]) == [False, False, True]


def test_the_last_epoch_is_the_trial_where_epochs_cannot_be_cut_short(trial, run_of):
    table = epochs_table(find(run_of(trial(0))))  # its settings have no number of epochs
    assert list(table["front"]) == [False, True]
    assert list(table["test_asr"].fillna(-1).round(2)) == [-1, 0.11]
