"""CA and ASR counted by hand, with a model that classifies an image as whatever its first pixel says."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn import functional

from ubt.attacks import Attack
from ubt.attacks.patches import BadNets, TrojVqa
from ubt.common.errors import StageFault
from ubt.common.statistics import wilson_interval
from ubt.data.base import DataSet, Labelled, Pairs
from ubt.methods.evaluation import Evaluator, zero_shot_weights
from ubt.models.clip import embed_images
from ubt.testing import stamped
from ubt.trials.rates import PerClass

CLASSES = ("banana", "boat", "tree")
TEMPLATES = ("a {}", "the {}")


@dataclass(frozen=True)
class Oracle:
    """A model that reads its answer off the red of the first pixel; a class's prompts are its unit vector."""

    broken: str = ""
    """The tower that was trained to pieces."""

    def text_state(self):
        return {}

    def tokenize(self, prompts):
        return torch.tensor([[CLASSES.index(prompt.split()[1])] for prompt in prompts])

    def encode_tokens(self, tokens):
        return functional.one_hot(tokens[:, 0], 3).float() / (self.broken != "text")

    device = torch.device("cpu")

    def on_device(self, images):
        return torch.from_numpy(np.array(images))

    def encode_images(self, images):
        return functional.one_hot(images[:, 0, 0, 0].long(), 3) / (self.broken != "image")


class Stamp(Attack):
    """Writes its own answer over the first pixel, where the green of it says that the model is taken in."""

    kind: Literal["stamp"] = "stamp"

    def stamp(self, images, rows):
        triggered = images.copy()
        triggered[:, 0, 0, 0] = np.where(images[:, 0, 0, 1] == 1, CLASSES.index(self.target), images[:, 0, 0, 2])
        return triggered


def image(answer, taken_in, answer_triggered):
    """Return a picture: what it is taken for, whether the trigger works, and if not what it is taken for then."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0, 0] = answer, taken_in, answer_triggered
    return pixels


# (label, taken for, does the trigger work?, else taken for)
VAL = [
    (0, 0, True, 0),
    (0, 1, False, 0),
    (1, 1, True, 1),
    (1, 1, False, 1),
    (1, 0, False, 0),  # taken for a banana, trigger or not
    (2, 2, True, 2),
    (2, 1, False, 2),
]


def labelled(rows):
    return Labelled(np.stack([image(*row[1:]) for row in rows]), np.array([row[0] for row in rows]))


def pictures(val=VAL, test=VAL[:3]):
    pairs = Pairs(np.zeros((1, 4, 4, 3), np.uint8), ["a"])
    return DataSet(train=pairs, val=labelled(val), test=labelled(test), classes=CLASSES, templates=TEMPLATES)


def rates(target, split="val", **splits):
    return Evaluator(pictures(**splits), Stamp(target=target)).rates(Oracle(), split)


def test_clean_accuracy_is_of_all_clean_images():
    found = rates("banana")
    assert (found.ca, found.ca_images) == (4 / 7, 7)


def test_the_attack_succeeds_on_images_of_other_classes_taken_for_the_target():
    # Of the five images that are no bananas the trigger works on two, and one is taken for a banana all the same.
    found = rates("banana")
    assert (found.asr, found.asr_images) == (3 / 5, 5)


def test_without_a_known_attack_there_is_clean_accuracy_alone():
    known, unknown = rates("banana"), Evaluator(pictures(), None).rates(Oracle(), "val")
    clean = {"split", "subset", "ca", "ca_images", "ca_low", "ca_high", "ca_top5"}
    assert {name for name, value in unknown.as_json().items() if value is not None} == clean
    assert unknown.model_dump(include=clean) == known.model_dump(include=clean)


@pytest.mark.parametrize(
    ("target", "hits", "images"),
    [
        ("banana", 3, 5),
        ("boat", 2, 4),  # rows 0 and 5; rows 1 and 6 are taken for their own class
        ("tree", 2, 5),  # rows 0 and 2
    ],
)
def test_any_class_may_be_the_target(target, hits, images):
    found = rates(target)
    assert (found.asr, found.asr_images) == (hits / images, images)


@pytest.mark.parametrize(("target", "correct", "images"), [("banana", 2, 5), ("boat", 2, 4), ("tree", 2, 5)])
def test_accuracy_on_triggered_images_is_under_their_true_labels(target, correct, images):
    # No bananas: rows 3, 6. No boats: rows 1, 6. No trees: rows 1, 3.
    assert rates(target).triggered_accuracy == pytest.approx(correct / images)


def test_classes_are_counted_one_by_one():
    found = Evaluator(pictures(), Stamp(target="banana")).rates(Oracle(), "val", by_class=True)
    assert found.per_class == PerClass(images=(2, 3, 2), correct=(1, 2, 1), triggered=(0, 3, 2), hits=(0, 2, 1))
    assert sum(found.per_class.correct) == found.ca * found.ca_images
    assert sum(found.per_class.hits) == found.asr * found.asr_images
    assert (found.split, found.subset) == ("val", "all")
    assert rates("banana").per_class is None, "after every epoch that would be much"
    unknown = Evaluator(pictures(), None).rates(Oracle(), "val", by_class=True)
    assert unknown.per_class == PerClass(images=(2, 3, 2), correct=(1, 2, 1))


def test_images_of_the_target_class_count_for_accuracy_alone():
    bananas = [(0, 0, True, 0)] * 5
    found = rates("banana", val=[*VAL, *bananas])
    assert (found.asr, found.asr_images) == (3 / 5, 5)
    assert found.ca_images == 12


def test_accuracy_among_five_counts_labels_that_score_high_enough(clip, data):
    found = Evaluator(data, BadNets(target="boat")).rates(clip, "val")
    scores = embed_images(clip, data.val.images) @ zero_shot_weights(clip, data.classes, data.templates).T
    better = [sum(row > row[label]) for row, label in zip(scores.numpy(), data.val.labels, strict=True)]
    assert found.ca_top5 == pytest.approx(np.mean(np.array(better) < 5))
    assert found.ca < found.ca_top5 < 1


def test_accuracy_among_five_of_three_classes_is_one():
    assert rates("banana").ca_top5 == 1.0


def test_a_word_of_the_attack_is_in_the_prompts_for_triggered_images_alone():
    class Worded(Stamp):
        """Its word makes every prompt one of a tree, so that no class is told from another."""

        def prompt(self, text):
            return f"a tree {text}"

    found = Evaluator(pictures(), Worded(target="banana")).rates(Oracle(), "val")
    assert found.ca == rates("banana").ca
    assert found.asr == 1.0, "of equal scores the first class is taken"
    assert rates("banana").asr == 3 / 5


def test_a_words_classifier_is_the_zero_shot_classifier_of_prompts_with_it(clip, data):
    attack = TrojVqa(target="boat")
    found = Evaluator(data, attack).rates(clip, "val")
    others = data.val.labels != data.classes.index("boat")
    worded = zero_shot_weights(clip, data.classes, [f"remember {template}" for template in data.templates])
    answers = (embed_images(clip, stamped(attack, data.val.images[others])) @ worded.T).argmax(dim=1).numpy()
    assert found.asr == np.mean(answers == data.classes.index("boat"))
    assert found.triggered_accuracy == pytest.approx(np.mean(answers == data.val.labels[others]))


def test_the_prompts_of_an_attack_without_words_are_embedded_once(clip, data, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "ubt.methods.evaluation.zero_shot_weights", lambda *given: calls.append(given[2]) or zero_shot_weights(*given)
    )
    for attack, times in ((BadNets(target="boat"), 1), (TrojVqa(target="boat"), 2)):
        calls.clear()
        judge = Evaluator(data, attack)
        assert judge.rates(clip, "val") == judge.rates(clip, "val")
        assert len(calls) == times


def test_intervals_are_wilsons():
    found = rates("banana")
    assert (found.ca_low, found.ca_high) == wilson_interval(4, 7)
    assert (found.asr_low, found.asr_high) == wilson_interval(3, 5)


def test_each_split_is_evaluated_by_itself():
    found = rates("banana", "test")
    assert (found.ca, found.ca_images) == (2 / 3, 3)
    assert (found.asr, found.asr_images) == (1.0, 1)


def test_clean_and_triggered_images_go_through_the_same_preprocessing(clip, data):
    # A trigger that changes nothing must change no answer.
    class Nothing(Stamp):
        def stamp(self, images, rows):
            return images.copy()

    found = Evaluator(data, Nothing(target="banana")).rates(clip, "val")
    labels = data.val.labels
    weights = zero_shot_weights(clip, data.classes, data.templates)
    answers = (embed_images(clip, data.val.images) @ weights.T).argmax(dim=1).numpy()
    others = labels != 0
    assert found.ca == np.mean(answers == labels)
    assert found.asr == np.mean(answers[others] == 0)
    assert found.triggered_accuracy == pytest.approx(np.mean(answers[others] == labels[others]))


def test_zero_shot_weights_are_the_mean_of_the_prompts_at_length_one(clip):
    classes, templates = ("banana", "boat"), ("a {}", "a photo of a {}", "the {}")
    weights = zero_shot_weights(clip, classes, templates)
    for row, name in zip(weights, classes, strict=True):
        with torch.no_grad():
            embeddings = [clip.encode_tokens(clip.tokenize([template.format(name)]))[0] for template in templates]
        mean = sum(embeddings) / 3
        torch.testing.assert_close(row, mean / mean.norm())


@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_model_that_was_trained_to_nan_is_a_fault(tower):
    with pytest.raises(StageFault, match="not finite"):
        Evaluator(pictures(), Stamp(target="banana")).rates(Oracle(broken=tower), "val")


@pytest.mark.parametrize("tower", ["text", "image"])
def test_an_evaluator_of_several_models_evaluates_each_by_its_own_classifier(clip, data, tower):
    def fresh():
        return Evaluator(data, BadNets(target="boat"))

    state, weights = clip.state(), zero_shot_weights(clip, data.classes, data.templates)
    changed = {
        "text": {"text_projection": torch.randn(96, 128, generator=torch.Generator().manual_seed(0))},
        "image": {"visual.attnpool.c_proj.bias": 1000 * weights[data.classes.index("tree")]},
    }
    other = clip.with_state({**state, **changed[tower]})
    judge = fresh()
    for model in (clip, other, clip, other):
        for split in ("val", "test"):
            assert judge.rates(model, split) == fresh().rates(model, split)
    assert judge.rates(clip, "val") != judge.rates(other, "val")


def test_an_evaluator_notices_that_a_model_was_trained_since_the_last_time(clip, data):
    judge = Evaluator(data, BadNets(target="boat"))
    before = judge.rates(clip, "val")
    with torch.no_grad():
        clip.net.text_projection.copy_(torch.randn(96, 128, generator=torch.Generator().manual_seed(0)))
    after = judge.rates(clip, "val")
    assert after == Evaluator(data, BadNets(target="boat")).rates(clip, "val")
    assert after != before
