"""The chosen configuration class by class."""

from dataclasses import replace

import pytest

from analysis.details.classes import class_table
from analysis.findings import find
from analysis.report import report_contents


@pytest.fixture
def counted(trial, rates):
    """The builder of a trial with three classes of ten images each, the last one the target."""

    def build(number, hits, correct, classes=3, **fields):
        images = (10,) * classes
        attack = {"triggered": (*images[1:], 0), "hits": (hits,) * (classes - 1) + (0,)}
        after = {"images": images, "correct": (correct,) * classes} | attack
        before = {"images": images, "correct": (9,) * classes} | attack | {"hits": (10,) * (classes - 1) + (0,)}
        split = {name: rates(0.1, 0.5).model_copy(update={"per_class": c}) for name, c in _splits(after, before)}
        known = {name: one.model_dump() for name, one in split.items()}
        return trial(number, classes=tuple(f"c{at}" for at in range(classes)), **known, **fields)

    return build


def _splits(after, before):
    return (("test", after), ("poisoned_test", before))


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_rates_of_each_class_before_and_after_the_defense_are_over_all_seeds(run_of, counted):
    table = class_table(find(run_of(counted(0, hits=1, correct=8), counted(1, hits=3, correct=7, seed=1))))
    assert [column.title for column in table.columns][1:5] == [
        "ASR, poisoned",
        "ASR, defended",
        "CA, poisoned",
        "CA, defended",
    ]
    assert texts(table)[0] == ["c0", "100.0%", "20.0%", "90.0%", "75.0%", "−15.0", "20"]
    assert texts(table)[2][:3] == ["c2", "–", "–"], "no image of the target is taken for it wrongly"


def test_there_is_none_of_many_classes_or_where_none_were_counted(run_of, trial, counted):
    assert not class_table(find(run_of(counted(0, 1, 8, classes=21)))).rows
    assert not class_table(find(run_of(trial(0)))).rows


def test_the_page_has_the_table_where_there_is_one_and_leads_to_it(run_of, trial, counted):
    page = report_contents(find(run_of(counted(0, 1, 8))))["index.html"]
    assert '<section id="classes">' in page
    assert '<a href="#classes">' in page
    without = report_contents(find(run_of(trial(0))))["index.html"]
    assert '<section id="classes">' not in without
    assert '<a href="#classes">' not in without


def test_the_page_of_a_running_sweep_says_that_earlier_epochs_are_still_to_be_judged(run_of, trial):
    every = find(replace(run_of(trial(0)), epochs="every"))
    said = "once the search has ended"
    assert said in report_contents(every, live=1)["index.html"]
    assert said not in report_contents(every)["index.html"]
    assert said not in report_contents(find(run_of(trial(0))), live=1)["index.html"]
