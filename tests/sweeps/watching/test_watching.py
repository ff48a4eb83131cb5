"""What `ubt watch` shows of a run, and what its server answers."""

import io
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sweeps.cli.app import app
from sweeps.watching.look import Watched
from sweeps.watching.server import Pages, serve
from sweeps.watching.terminal import Log, line, screen
from ubt.common.errors import UserError
from ubt.trials.planned import PLAN_FILE, PlannedCosts
from ubt.trials.record import State, read_record, write_record


@pytest.fixture
def run(made_run, tmp_path):
    return made_run(tmp_path / "run", trials=8, running=2)


def end(run, trial, **fields):
    record = read_record(run / "records" / f"{trial}.json")
    write_record(run / "records", record.model_copy(update={"state": State.FAILED, "reason": "no disk", **fields}))


def test_a_look_has_what_runs_where_and_for_how_long_and_what_was_saved(run):
    began = read_record(run / "records" / "t0006.json").attempts[-1].started_at
    now = datetime.fromisoformat(began).replace(tzinfo=UTC).timestamp() + 90
    look = Watched(str(run), lambda: datetime.fromtimestamp(now, UTC)).look()
    assert (look.ended, look.states[State.RUNNING], look.at_work) == (6, 2, False)
    first = look.running[0]
    assert (first.trial, first.at, first.node) == ("t0006", "overfit epoch 3", "node-1")
    assert first.seconds == pytest.approx(90)
    assert (look.counted, look.work) == ("6 trials", "not being swept; 2 trials cut off")
    assert look.saved_seconds > look.computed_seconds / 2
    assert look.per_hour > 0
    assert look.findings.front


def test_another_version_is_there_when_a_trial_ends_and_not_before(run):
    watched = Watched(str(run))
    first = watched.look()
    assert watched.look().version == first.version
    end(run, "t0006")
    second = watched.look()
    assert second.version == first.version + 1
    assert second.failures == (("t0006", "no disk"),)


def test_how_long_a_trial_runs_goes_on_while_its_record_stands_still(run):
    began = datetime.fromisoformat(read_record(run / "records" / "t0006.json").attempts[-1].started_at)
    now = [began.replace(tzinfo=UTC)]
    watched = Watched(str(run), lambda: now[0])
    assert watched.look().running[0].seconds == 0
    now[0] += timedelta(seconds=40)
    assert watched.look().running[0].seconds == 40


def test_of_a_study_that_cannot_be_read_here_the_plan_says_how_many_trials_there_are(run):
    costs = PlannedCosts(seconds={}, wall_seconds=None, workers=2, gpus=0, trials=8)
    (run / PLAN_FILE).write_text(costs.model_dump_json())
    look = Watched(str(run)).look()
    assert (look.total, look.counted) == (8, "6 of 8 trials")
    end(run, "t0006")
    end(run, "t0007")
    assert Watched(str(run)).look().work == "complete"


def test_a_run_whose_first_trial_has_not_begun_is_waited_for_and_what_is_no_run_is_not(run, tmp_path):
    for record in (run / "records").iterdir():
        record.unlink()
    look = Watched(str(run)).look()
    assert (look.ended, look.findings) == (0, None)
    with pytest.raises(UserError):
        Watched(str(tmp_path / "nothing")).look()


def test_the_terminal_has_the_front_with_the_choice_what_runs_and_what_failed(run):
    end(run, "t0006")
    stream = io.StringIO()
    look = Watched(str(run)).look()
    Console(file=stream, width=100).print(screen(look, "http://127.0.0.1:1/"))
    text = stream.getvalue()
    assert f"{look.findings.chosen.title} *" in text
    assert "t0007" in text
    assert "t0006 failed: no disk" in text
    assert "http://127.0.0.1:1/" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_log_has_a_line_when_a_trial_ends_and_one_a_minute(run):
    stream, now = io.StringIO(), [0.0]
    log, watched = Log(stream, lambda: now[0]), Watched(str(run))
    for at, lines in ((0, 1), (10, 1), (70, 2)):
        now[0] = at
        log.show(watched.look())
        assert len(stream.getvalue().splitlines()) == lines
    end(run, "t0006")
    log.show(watched.look())
    assert stream.getvalue().splitlines()[-1] == line(watched.look())
    assert "1 failed" in stream.getvalue().splitlines()[-1]


def fetch(server, name, host=None):
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_address[1]}/{name}")
    if host:
        request.add_header("Host", host)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


@pytest.fixture
def served(run):
    watched, pages = Watched(str(run)), Pages(clock=lambda: 0.0)
    pages.take(watched.look())
    server = serve(pages, 0)
    yield server, pages, watched
    server.shutdown()


def test_the_server_has_the_report_its_files_and_what_the_run_is_at(served, run):
    server, pages, watched = served
    page = fetch(server, "")
    assert "connect-src 'self'" in page
    assert fetch(server, "trials.csv").startswith("number,trial")
    before = json.loads(fetch(server, "live.json"))
    assert before["ended"] == 6
    assert [one[0] for one in before["running"]] == ["t0006", "t0007"]
    end(run, "t0006")
    pages.take(watched.look())
    after = json.loads(fetch(server, "live.json"))
    assert after["page"] == before["page"] + 1
    assert "no disk" in fetch(server, "index.html")


@pytest.mark.parametrize("name", ["records/t0001.json", "../study.json", "%2e%2e/study.json"])
def test_the_server_has_nothing_else(served, name):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(served[0], name)


def test_a_page_of_another_site_that_names_this_machine_its_own_way_is_refused(served):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        fetch(served[0], "live.json", host="evil.example")


def test_reports_are_not_written_more_often_than_they_take_a_tenth_of_the_time(run):
    now = [0.0]

    def clock():
        now[0] += 1.0  # each look at the clock is a second later, so a report takes one
        return now[0]

    watched, pages = Watched(str(run)), Pages(clock)
    pages.take(watched.look())
    end(run, "t0006")
    pages.take(watched.look())
    assert pages.waits
    now[0] += 60
    pages.take(watched.look())
    assert not pages.waits


def test_the_command_shows_a_run_once(run):
    done = CliRunner().invoke(app, ["watch", str(run), "--once"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("search 6 trials: ")
