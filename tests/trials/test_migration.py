"""The study of a run folder that version 0.1 wrote; records of it are in `test_records`."""

import pytest

from ubt.trials.migration import migrated_study

CLEAN = {"kind": "ubt", "detector": "clean", "neighbours": 8}


def migrated_search(search, defense=None):
    return migrated_study({"measures": [], "defense": defense or CLEAN, "search": search})["search"]


def test_a_study_of_this_version_is_left_as_it_is():
    study = {"metrics": [], "defense": {"kind": "ubt", "detector": {"kind": "clean"}}}
    assert migrated_study(study) is study


def test_metrics_and_the_detector_have_their_names_of_now():
    study = {"name": "a", "measures": ["retrieval"], "defense": {**CLEAN, "detector": "lof"}, "seeds": [0]}
    assert migrated_study(study) == {
        "name": "a",
        "metrics": ["retrieval"],
        "defense": {"kind": "ubt", "detector": {"kind": "lof", "neighbours": 8}},
        "seeds": [0],
    }


def test_searched_detectors_have_the_neighbours_of_the_base():
    space = {"defense.detector": ["clean", "lof"], "defense.neighbours": [4, 8], "defense.token_threshold": [0.1]}
    assert migrated_search({"space": space, "n_trials": 3}) == {
        "space": {
            "defense.detector": [{"kind": "clean"}, {"kind": "lof", "neighbours": 8}],
            "defense.detector.neighbours": [4, 8],
            "defense.token_threshold": [0.1],
        },
        "n_trials": 3,
    }


def test_conditions_ask_for_the_kind_of_a_detector():
    when = {"defense.neighbours": {"defense.detector": ["knn", "lof"], "defense.neighbours": 3}}
    assert migrated_search({"when": when})["when"] == {
        "defense.detector.neighbours": {"defense.detector.kind": ["knn", "lof"], "defense.detector.neighbours": 3}
    }


def test_designs_within_a_search_and_listed_trials_are_migrated_too():
    trials = {"design": "list", "trials": [{}, {"defense.detector": "knn", "defense.neighbours": 3}]}
    assert migrated_search({"design": "concat", "designs": [trials]})["designs"] == [
        {
            "design": "list",
            "trials": [{}, {"defense.detector": {"kind": "knn", "neighbours": 8}, "defense.detector.neighbours": 3}],
        }
    ]


@pytest.mark.parametrize("search", [None, {"space": {"defense.detector": ["lof"]}}])
def test_each_defense_of_a_comparison_is_migrated_with_its_search(search):
    row = {"defense": {**CLEAN, "detector": "knn"}, "search": search}
    found = migrated_search({"design": "comparison", "defenses": {"ubt": row}})["defenses"]["ubt"]
    assert found["defense"] == {"kind": "ubt", "detector": {"kind": "knn", "neighbours": 8}}
    assert found["search"] == (search and {"space": {"defense.detector": [{"kind": "lof", "neighbours": 8}]}})
