from analysis.figures.stages import StageTimes, draw_stages, stages_info
from analysis.findings import find


def test_seconds_are_added_up_by_stage_and_by_reuse(run_of, trial):
    info = stages_info(find(run_of(trial(0), trial(1, changes={"defense.unlearn_samples": 8}))))
    assert info.stages == (
        StageTimes("suspect", computed=0, reused=2, computed_seconds=0, reused_seconds=20),
        StageTimes("unlearn", computed=2, reused=0, computed_seconds=8, reused_seconds=0),
    )


def test_stages_stand_in_the_order_of_the_longest_pipeline(run_of, trial):
    full = trial(1).stages
    info = stages_info(find(run_of(trial(0, stages=full[1:]), trial(1, stages=full))))
    assert [stage.stage for stage in info.stages] == ["suspect", "unlearn"]


def test_stages_of_failed_trials_count_too(run_of, trial):
    failed = trial(0, state="FAILED", stages=trial(1).stages)
    assert len(stages_info(find(run_of(failed))).stages) == 2


def test_stages_that_took_no_time_are_drawn(run_of, trial):
    stages = tuple(stage.model_copy(update={"seconds": 0.0, "spent_seconds": 0.0}) for stage in trial(0).stages)
    figure = draw_stages(stages_info(find(run_of(trial(0, stages=stages)))))
    assert list(figure.layout.xaxis.range) == [0, 1]
