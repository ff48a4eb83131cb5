"""Which epochs are judged, on which images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ubt.testing import tiny_trial
from ubt.trials.config import TrialConfig
from ubt.trials.judging import Judging, stratified

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(np.array)


@given(LABELS, st.data())
def test_some_of_the_images_are_of_every_class_its_share_and_fewer_are_some_of_more(labels, data):
    count = data.draw(st.integers(1, len(labels)))
    rows = stratified(labels, count)
    assert len(set(rows.tolist())) == count
    assert sorted(rows) == rows.tolist() == stratified(labels, count).tolist()
    for name in set(labels.tolist()):
        share = count * np.mean(labels == name)
        assert abs(np.sum(labels[rows] == name) - share) <= 1
    assert set(stratified(labels, max(1, count - 1)).tolist()) <= set(rows.tolist())


def test_as_many_as_classes_are_one_of_each():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 5))
    assert np.bincount(labels[stratified(labels, 50)]).tolist() == [1] * 50


@pytest.mark.parametrize(
    ("epochs", "judged"), [("all", [0, 1, 2, 3, 4, 5, 6]), ("last", []), (2, [0, 2, 4, 6]), (4, [0, 4])]
)
def test_which_epochs_are_judged_depends_on_their_numbers_alone(epochs, judged):
    judging = Judging(epochs=epochs)
    assert [epoch for epoch in range(7) if judging.after(epoch)] == judged
    assert judging.times(6) == len([epoch for epoch in judged if epoch])


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"epochs": "first"}, {"images": 0}, {"images": True}])
def test_what_cannot_be_judged_is_refused(wrong):
    with pytest.raises(ValidationError):
        Judging.model_validate(wrong)


def test_configurations_that_judge_everything_are_written_as_ever():
    assert "judging" not in tiny_trial().as_json()
    some = tiny_trial().model_copy(update={"judging": Judging(images=20)})
    assert some.as_json()["judging"] == {"epochs": "all", "images": 20}
    assert TrialConfig.model_validate(some.as_json()) == some
