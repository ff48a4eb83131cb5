from __future__ import annotations

import pytest

from ubt.trials.labels import ComparisonCell, TrialLabel, label_of_text

CELLS = [
    (ComparisonCell(phase="table", defense="ubt", attack="badnets"), "table:ubt/badnets"),
    (
        ComparisonCell(phase="search", defense="clean-clip", attack="label_consistent"),
        "search:clean-clip/label_consistent",
    ),
    (ComparisonCell(phase="table", defense="abl", attack="sig", note="search failed"), "table:abl/sig (search failed)"),
]


@pytest.mark.parametrize(("cell", "text"), CELLS)
def test_a_label_reads_as_version_1_wrote_it(cell: ComparisonCell, text: str) -> None:
    assert str(TrialLabel(cell=cell)) == text
    assert label_of_text(text) == TrialLabel(cell=cell)


@pytest.mark.parametrize("text", ["", "base", "no-overfit", "table:ubt", "tables:ubt/sig", "table:ubt/sig ()"])
def test_other_labels_are_components(text: str) -> None:
    assert label_of_text(text) == TrialLabel(component=text)
    assert str(label_of_text(text)) == text
    assert bool(label_of_text(text)) is bool(text)
