import pickle

import pytest

from ubt.common.errors import DamagedArtifact, Problem, StageFault, UserError, WeakImplant

RATIO = Problem("study.yaml: defense.suspicious_ratio", "must be below 1", 2, advice="give a fraction")


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("here", "is missing"), "here: is missing"),
        (Problem("here", "is wrong", "abc"), "here: is wrong (given: 'abc')"),
        (Problem("here", "is wrong", 0), "here: is wrong (given: 0)"),
        (Problem("here", "is wrong", ""), "here: is wrong (given: '')"),
        (RATIO, "study.yaml: defense.suspicious_ratio: must be below 1 (given: 2)\n    → give a fraction"),
    ],
)
def test_a_problem_says_where_what_was_given_and_what_to_do(problem, text):
    assert str(problem) == text


def test_a_long_value_is_shortened():
    text = str(Problem("here", "is wrong", "x" * 5000))
    assert len(text) < 200
    assert text.endswith("x…)")


def test_a_user_error_carries_every_problem():
    other = Problem("there", "is missing")
    error = UserError(problem for problem in (RATIO, other))
    assert error.problems == (RATIO, other)
    assert str(error) == f"{RATIO}\n{other}"
    assert UserError(RATIO).problems == (RATIO,)


def test_the_text_of_many_problems_is_short_and_counts_the_rest():
    error = UserError(Problem(f"row {row}", "is missing") for row in range(1500))
    assert len(error.problems) == 1500
    assert str(error).splitlines()[-2:] == ["row 19: is missing", "and 1,480 more"]


def test_a_user_error_survives_the_trip_from_a_worker():
    error = pickle.loads(pickle.dumps(UserError([RATIO, Problem("there", "is missing")])))
    assert type(error) is UserError
    assert error.problems == (RATIO, Problem("there", "is missing"))
    assert "give a fraction" in str(error)


@pytest.mark.parametrize("kind", [StageFault, WeakImplant, DamagedArtifact])
def test_a_fault_survives_the_trip_from_a_worker(kind):
    error = pickle.loads(pickle.dumps(kind("the loss is nan")))
    assert type(error) is kind
    assert str(error) == "the loss is nan"


def test_a_weak_implant_is_a_stage_fault_and_a_damaged_artifact_is_not():
    assert issubclass(WeakImplant, StageFault)
    assert not issubclass(DamagedArtifact, StageFault), "the pipeline heals it"
