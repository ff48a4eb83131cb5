"""What a trial measures of its epochs, as the study says, and what it does not measure twice."""

import pytest

from ubt.methods.evaluation import Evaluator
from ubt.testing import run_tiny_trial

EPOCHS = {"defense.unlearn_epochs": 2}


@pytest.fixture
def passes(monkeypatch):
    """Return what is put through models to judge them: (split, images), in order."""
    seen, shown = [], Evaluator.shown

    def look(self, clip, split, rows=None):
        found = shown(self, clip, split, rows)
        seen.append((split, len(found.labels)))
        return found

    monkeypatch.setattr(Evaluator, "shown", look)
    return seen


def test_the_last_epochs_validation_is_not_computed_again(tiny_run, tmp_path, passes):
    record = run_tiny_trial(tmp_path)
    assert (record.val, record.test) == (tiny_run.record.val, tiny_run.record.test)
    unlearned = next(stage for stage in record.stages if stage.stage == "unlearn").epochs
    assert record.val.per_class is not None
    assert record.val.model_copy(update={"per_class": None}) == unlearned[-1].val
    assert [split for split, _ in passes] == ["val", "test", *["val"] * len(unlearned), "test"]


def test_epochs_may_be_judged_on_some_images_and_the_end_in_full(tiny_run, tmp_path, passes):
    record = run_tiny_trial(tiny_run.copy(tmp_path), {"judging": {"images": 20}, **EPOCHS})
    unlearned = next(stage for stage in record.stages if stage.stage == "unlearn")
    assert not unlearned.reused
    for epoch in unlearned.epochs:
        assert epoch.val.provisional
        assert (epoch.val.subset, epoch.val.ca_images) == ("stratified-20", 20)
        assert str(epoch.val).endswith("(of 20 images)")
    full = tiny_run.record.val.ca_images
    assert (record.val.subset, record.val.ca_images) == ("all", full)
    assert [seen for seen in passes if seen[0] == "val"] == [("val", 20), ("val", 20), ("val", full)]
    assert {stage.stage for stage in record.stages if not stage.reused} == {"unlearn", "evaluate"}


@pytest.mark.parametrize(("epochs", "judged"), [("last", []), (2, [2])])
def test_not_every_epoch_has_to_be_judged(tiny_run, tmp_path, epochs, judged):
    record = run_tiny_trial(tiny_run.copy(tmp_path), {"judging": {"epochs": epochs}, **EPOCHS})
    unlearned = next(stage for stage in record.stages if stage.stage == "unlearn")
    assert [epoch.epoch for epoch in unlearned.epochs if epoch.val] == judged
    assert record.val.subset == "all"
