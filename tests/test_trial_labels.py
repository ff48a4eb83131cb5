from __future__ import annotations

import pytest

from ubt.trials.labels import Cell, cell_of

CELLS = [
    (Cell("table", "ubt", "badnets"), "table:ubt/badnets"),
    (Cell("search", "clean-clip", "label_consistent"), "search:clean-clip/label_consistent"),
    (Cell("table", "abl", "sig", "search failed"), "table:abl/sig (search failed)"),
]


@pytest.mark.parametrize(("cell", "label"), CELLS)
def test_a_label_says_what_it_was_made_of(cell: Cell, label: str) -> None:
    assert str(cell) == label
    assert cell_of(label) == cell


@pytest.mark.parametrize("label", ["", "base", "no-overfit", "table:ubt", "tables:ubt/sig", "table:ubt/sig ()"])
def test_other_labels_are_no_cells(label: str) -> None:
    assert cell_of(label) is None
