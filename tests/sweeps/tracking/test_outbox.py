from pathlib import Path

from sweeps.tracking.delivery import Outbox
from sweeps.tracking.events import StudyStarted, TrialUpdated


def drained(outbox: Outbox) -> list[object]:
    events = []
    while waiting := outbox.oldest():
        events.append(waiting.event)
        outbox.sent(waiting)
    return events


def test_events_come_out_in_the_order_in_which_they_went_in(tmp_path: Path, make_record) -> None:
    outbox = Outbox(tmp_path)
    events = [
        StudyStarted(study="toy", document={}),
        *(TrialUpdated(record=make_record(n)) for n in range(12)),
    ]
    for event in events:
        outbox.add(event)
    assert drained(outbox) == events
    assert len(outbox) == 0


def test_only_the_newest_event_about_a_trial_waits(tmp_path: Path, make_record) -> None:
    outbox = Outbox(tmp_path)
    for epochs in (0, 1, 2):
        outbox.add(TrialUpdated(record=make_record(1, epochs)))
        outbox.add(TrialUpdated(record=make_record(2, epochs)))
    assert [event.record for event in drained(outbox)] == [make_record(1, 2), make_record(2, 2)]


def test_a_new_process_goes_on_where_the_old_one_was_killed(tmp_path: Path, make_record) -> None:
    Outbox(tmp_path).add(TrialUpdated(record=make_record(1, 0)))
    Outbox(tmp_path).add(TrialUpdated(record=make_record(2, 0)))
    outbox = Outbox(tmp_path)
    outbox.add(TrialUpdated(record=make_record(1, 2)))
    assert [event.record for event in drained(outbox)] == [make_record(2, 0), make_record(1, 2)]


def test_an_event_superseded_while_it_is_being_sent_is_not_lost(tmp_path: Path, make_record) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(TrialUpdated(record=make_record(1, 0)))
    being_sent = outbox.oldest()
    outbox.add(TrialUpdated(record=make_record(1, 2)))
    outbox.sent(being_sent)
    assert [event.record for event in drained(outbox)] == [make_record(1, 2)]


def test_a_damaged_file_is_set_aside_and_does_not_block_the_rest(tmp_path: Path, make_record) -> None:
    (tmp_path / "0000000001.trial-x.json").write_text("{")
    outbox = Outbox(tmp_path)
    outbox.add(TrialUpdated(record=make_record(1)))
    assert [event.record for event in drained(outbox)] == [make_record(1)]
    assert "holds no event" in (tmp_path / "rejected" / "0000000001.trial-x.reason.txt").read_text()


def test_numbers_of_rejected_events_are_not_used_again(tmp_path: Path, make_record) -> None:
    outbox = Outbox(tmp_path)
    for _ in range(2):
        outbox.add(TrialUpdated(record=make_record(1)))
        outbox.set_aside(outbox.oldest().path, "no")
        outbox = Outbox(tmp_path)
    assert len(list((tmp_path / "rejected").glob("*.json"))) == 2


def test_the_identity_is_kept_with_the_run_folder_and_differs_between_two(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    assert Outbox(first).identity == Outbox(first).identity != Outbox(second).identity
    assert len(Outbox(first)) == 0
