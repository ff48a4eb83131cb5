from analysis.figures.base import Absent
from analysis.figures.epochs import draw_epochs, epochs_info
from analysis.findings import find
from ubt.trials.record import EpochRecord, StageRecord

SAMPLES = "defense.unlearn_samples"


def test_base_and_chosen_run_from_the_poisoned_model_to_the_last_epoch(run_of, trial):
    info = epochs_info(find(run_of(trial(0, asr=0.3), trial(1, asr=0.1, changes={SAMPLES: 8}))))
    assert [(course.role, course.trial) for course in info.courses] == [
        ("base", "trial-0"),
        ("chosen", "trial-1"),
    ]
    assert [point.epoch for point in info.courses[1].points] == [0, 1, 2]
    assert [point.asr.mean for point in info.courses[1].points] == [0.9, 0.5, 0.1]


def test_a_chosen_base_is_drawn_once(run_of, trial):
    info = epochs_info(find(run_of(trial(0))))
    assert [course.role for course in info.courses] == ["chosen"]
    assert len([trace for trace in draw_epochs(info).data if trace.showlegend]) == 1


def test_stages_in_a_row_are_counted_on(run_of, trial, rates):
    def stage(name):
        return StageRecord(
            stage=name,
            key=name,
            reused=False,
            seconds=1,
            epochs=(EpochRecord(epoch=1, seconds=1, val=rates(0.5, 0.8)), EpochRecord(epoch=2, seconds=1)),
        )

    (course,) = epochs_info(find(run_of(trial(0, stages=(stage("unlearn"), stage("finetune")))))).courses
    assert [(point.epoch, point.stage) for point in course.points] == [
        (0, "poisoned model"),
        (1, "unlearn, epoch 1"),
        (2, "finetune, epoch 1"),
    ]


def test_trials_without_measured_epochs_leave_nothing_to_show(run_of, trial):
    assert isinstance(epochs_info(find(run_of(trial(0, stages=())))), Absent)
