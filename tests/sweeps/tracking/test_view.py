"""A study's prepared page, as MLflow reads it."""

import json

from sweeps.tracking.view import TAG, View, page_address, run_address

LIMIT = 20_000
"""Letters of an experiment's tag that MLflow takes."""


def pages(view: View) -> tuple[dict, dict]:
    tags = view.tags()
    assert set(tags) == {TAG + view.key, TAG + view.front_key}
    assert all(len(text) < LIMIT for text in tags.values())
    return json.loads(tags[TAG + view.key]), json.loads(tags[TAG + view.front_key])


def types(page: dict) -> list[str]:
    return [chart["type"] for chart in page["compareRunCharts"]]


def test_a_study_s_page_has_its_trials_sorted_by_attack_success_and_its_knobs_in_columns() -> None:
    page, front = pages(View("0123456789abcdef", knobs=("defense.a", "defense.b")))
    assert page["searchFilter"] == "tags.`ubt.run` = '0123456789abcdef' AND tags.`ubt.trial` != ''"
    assert (page["orderByKey"], page["orderByAsc"]) == ("metrics.`test/asr`", True)
    columns = page["selectedColumns"]
    assert columns[1:5] == [f"metrics.`{name}`" for name in ("test/asr", "test/ca", "val/asr", "val/ca")]
    assert columns[5:7] == ["params.`defense.a`", "params.`defense.b`"]
    assert types(page) == ["SCATTER", "PARALLEL", "CONTOUR", "CONTOUR"]
    assert front["searchFilter"].endswith("AND tags.front = 'true'")
    assert types(front) == ["LINE", "LINE"]
    assert page["isAccordionReordered"], "the prepared charts come before those that MLflow adds"


def test_every_chart_has_a_name_of_its_own_and_lies_in_the_section_that_is_there() -> None:
    for page in pages(View("a", knobs=("x", "y"))):
        sections = {section["uuid"] for section in page["compareRunSections"]}
        assert {chart["metricSectionId"] for chart in page["compareRunCharts"]} == sections
        assert len({chart["uuid"] for chart in page["compareRunCharts"]}) == len(page["compareRunCharts"])


def test_with_several_seeds_the_means_are_shown() -> None:
    page, _ = pages(View("a", knobs=("x",), seeds=3))
    assert page["orderByKey"] == "metrics.`mean/test_asr`"
    assert "tags.`seed`" in page["selectedColumns"]
    assert page["compareRunCharts"][0]["xaxis"]["key"] == "mean/test_asr"


def test_without_an_attack_only_accuracy_is_shown() -> None:
    page, front = pages(View("a", knobs=("x", "y"), attacked=False))
    assert types(page) == ["PARALLEL", "CONTOUR"]
    assert (page["orderByKey"], page["orderByAsc"]) == ("metrics.`test/ca`", False)
    assert len(front["compareRunCharts"]) == 1
    assert "asr" not in json.dumps([page, front])


def test_twenty_knobs_fit() -> None:
    page, _ = pages(View("a", knobs=tuple(f"defense.a_long_name_of_a_setting_{number}" for number in range(20))))
    assert len([column for column in page["selectedColumns"] if column.startswith("params.")]) == 8


def test_addresses_hold_no_filter_which_would_cancel_the_view() -> None:
    address = page_address("http://127.0.0.1:5000/", "7", "ubt-a")
    assert address == (
        "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=ubt-a"
        "&compareRunsMode=CHART"
    )
    assert page_address("http://h", "7", "k", charts=False).endswith("viewStateShareKey=k")
    assert page_address("http://h", "7") == "http://h/#/experiments/7/runs?workflowType=machine_learning"
    assert run_address("http://h", "7", "r") == "http://h/#/experiments/7/runs/r?workflowType=machine_learning"
