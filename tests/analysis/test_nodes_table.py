"""What the nodes of a cluster did: in the report where there was more than one, and on a record."""

import pytest

from analysis import write_report
from analysis.findings import find
from analysis.nodes import node_table
from ubt.trials.record import Attempt

UNFIT = "UnfitNode: node c has other content than the study was planned with: pairs.csv: row 17"


@pytest.fixture
def on(trial):
    """Return a trial that ran on some nodes, one after the other; the last one computed its first stage."""

    def build(number, *nodes):
        record = trial(number)
        ended = [Attempt(node=node, ended_by=UNFIT) for node in nodes[:-1]]
        stages = tuple(
            stage.model_copy(update={"node": nodes[-1] if at == 0 else "a", "reused": at > 0})
            for at, stage in enumerate(record.stages)
        )
        return record.model_copy(update={"attempts": (*ended, Attempt(node=nodes[-1])), "stages": stages})

    return build


def test_each_node_has_its_trials_its_stages_and_what_it_handed_back(run_of, on):
    table = node_table(find(run_of(on(0, "a"), on(1, "c", "b"), on(2, "b"))))
    rows = [[cell.text for cell in row] for row in table.rows]
    assert [row[:4] for row in rows] == [["a", "1", "1", "1"], ["b", "2", "2", "2"], ["c", "0", "0", "0"]]
    assert [row[5] for row in rows] == ["–", "–", f"1 trial: {UNFIT}"]


def test_the_report_has_the_table_where_there_was_more_than_one(run_folder, on):
    page = write_report(run_folder(on(0, "a"), on(1, "c", "b"))).page.read_text(encoding="utf-8")
    assert 'id="nodes"' in page
    assert "pairs.csv: row 17" in page


def test_one_node_has_no_table(run_folder, run_of, on):
    assert node_table(find(run_of(on(0, "a"), on(1, "a")))).rows == ()
    page = write_report(run_folder(on(0, "a"))).page.read_text(encoding="utf-8")
    assert 'id="nodes"' not in page


def test_a_record_knows_all_nodes_that_it_came_from(on):
    assert on(1, "c", "b").nodes == ("c", "b", "a")
    assert on(1, "a").nodes == ("a",)
