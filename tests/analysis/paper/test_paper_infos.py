"""What the figures for papers show, worked out from artifacts."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from analysis.figures.base import Absent
from analysis.paper.artifacts import Artifacts
from analysis.paper.captions import MOST_CLEAN, MOST_POISONED, Caption, captions_info, shown
from analysis.paper.separation import overfit_data_info, similarity_info
from ubt.trials.record import State

POISONED, SUSPECTS = np.arange(0, 200, 10), np.arange(0, 200, 4)
SIG = {"victim.attack": {"kind": "sig", "target": 3}}


def worked_out(info, toy):
    findings = toy.findings()
    return info(findings, Artifacts.of(findings.run))


def test_figure_3_has_a_column_an_attack_with_ubt_above_abl(toy):
    toy.add_ubt()
    toy.add_abl()
    toy.add_ubt(changes=SIG)
    info = worked_out(similarity_info, toy)
    assert [column.attack for column in info.columns] == ["BadNets", "SIG"]
    assert [name for name, _ in info.rows] == ["UBT", "ABL"]
    first, second = info.columns
    assert first.ubt.auroc == 1.0
    assert first.ubt.poisoned.sum() == np.isin(SUSPECTS, POISONED).sum()
    marks = np.isin(np.arange(200), POISONED)
    assert first.abl.auroc == pytest.approx(roc_auc_score(marks, np.linspace(0, 1, 200)))
    assert first.abl.remark == "(0.750 by gain)", "ABL is not judged by similarity alone"
    assert second.abl is None
    assert info.notes == ()


def test_figure_3_says_how_alike_pairs_were_before(toy):
    toy.add_ubt()
    (column,) = worked_out(similarity_info, toy).columns
    every = np.linspace(-0.2, 0.6, 200)
    assert column.ubt.auroc_before == pytest.approx(roc_auc_score(np.isin(SUSPECTS, POISONED), every[SUSPECTS]))


def test_figure_3_without_abl_is_ubts_row_and_a_line_that_says_so(toy):
    toy.add_ubt()
    info = worked_out(similarity_info, toy)
    assert [name for name, _ in info.rows] == ["UBT"]
    assert "defense.kind: abl" in info.notes[0]


def test_figure_3_takes_the_chosen_trial_and_none_that_overfits_all_pairs(toy):
    toy.add_ubt("all", asr=0.5)
    toy.add_ubt(asr=0.2, changes={"defense.x": 1})
    toy.add_ubt(asr=0.1)
    findings = toy.findings()
    read = []

    class Noted(Artifacts):
        def read(self, record, stage):
            read.append(record.trial)
            return super().read(record, stage)

    similarity_info(findings, Noted.of(findings.run))
    assert set(read) == {"trial-2"}


def test_figures_need_finished_trials(toy):
    toy.add_ubt()
    toy.records[0] = toy.records[0].model_copy(update={"state": State.FAILED})
    for info in (similarity_info, overfit_data_info, captions_info):
        absent = worked_out(info, toy)
        assert isinstance(absent, Absent)
        assert absent.why.startswith("It needs ")


def test_figure_4_sets_the_two_ways_of_overfitting_beside_each_other(toy):
    toy.add_ubt(seed=1)
    toy.add_ubt(seed=0, changes={"defense.unlearn_samples": 8})
    toy.add_ubt("all", seed=1)
    (row,) = worked_out(overfit_data_info, toy).rows
    assert (row.attack, len(row.suspicious.poisoned), len(row.everything.poisoned)) == ("BadNets", 50, 200)
    marks = np.isin(np.arange(200), POISONED)
    assert row.everything.auroc == pytest.approx(roc_auc_score(marks, np.linspace(-0.2, 0.6, 200)))


def test_figure_4_compares_only_on_one_victim(toy):
    toy.add_ubt()
    toy.add_ubt("all", changes=SIG)
    assert "on one victim" in worked_out(overfit_data_info, toy).why


def test_figure_5_marks_which_captions_are_poisoned(toy):
    toy.add_ubt()
    (panel,) = worked_out(captions_info, toy).panels
    assert [caption.poisoned for caption in panel.captions] == [True] * 5 + [False]
    assert panel.captions[0].tokens == (("a", 0.05), ("banana", 0.95), ("word0", 0.0))
    assert panel.threshold == 0.1


def test_figure_5_shows_the_first_distinct_captions_of_either_kind():
    def caption(word, poisoned, relevance=1.0):
        return Caption(((word, relevance),), poisoned)

    many = [caption(f"clean{i}", False) for i in range(9)] + [caption(f"bad{i}", True) for i in range(12)]
    found = shown([caption("bad0", True, 0.7), *many])
    assert [c.poisoned for c in found] == [True] * MOST_POISONED + [False] * MOST_CLEAN
    assert found[0].tokens == (("bad0", 0.7),)
    assert [c.tokens[0][0] for c in found[1:3]] == ["bad1", "bad2"]


def test_an_artifact_that_is_gone_is_told_and_the_rest_is_drawn(toy):
    toy.add_ubt()
    toy.add_ubt(changes=SIG)
    toy.store.remove(toy.store.manifest("overfit", "overfit-0"))
    info = worked_out(similarity_info, toy)
    assert [column.attack for column in info.columns] == ["SIG"]
    assert any("overfit-0" in note and "is not in the store" in note for note in info.notes)


def test_without_any_of_its_artifacts_a_figure_says_what_is_missing(toy):
    toy.add_ubt()
    toy.store.remove(toy.store.manifest("select", "select-0"))
    absent = worked_out(captions_info, toy)
    assert "`select` of trial-0" in absent.why


def test_artifacts_of_an_older_version_are_told(toy):
    toy.add_ubt()
    toy.publish("attribute", "attribute-0", relevance=np.zeros((6, 3)))
    assert "has no `captions`: it was made by an older version" in worked_out(captions_info, toy).why
    toy.publish("attribute", "attribute-0", {"captions": [["a", "b"]]}, relevance=np.zeros((6, 3)))
    assert "not as this version reads them" in worked_out(captions_info, toy).why


def test_a_victim_that_came_poisoned_cannot_be_drawn(toy):
    toy.add_ubt()
    toy.publish("poison", "poison-0", indices=np.zeros(0, dtype=np.int64))
    assert "came poisoned" in worked_out(similarity_info, toy).why
