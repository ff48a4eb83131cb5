"""The contract tests of `ubt.testing` find what is wrong with a bad plug-in, and say so."""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from pydantic import Field, JsonValue
from tiny_victim import tiny_trial

from ubt import testing
from ubt.attacks import ATTACKS
from ubt.attacks.base import Attack, Rows
from ubt.attacks.changes import mix
from ubt.config import Config
from ubt.data import DATA_SOURCES
from ubt.data.base import Labelled
from ubt.data.scenes import Scenes
from ubt.defenses import DEFENSES, Defense
from ubt.defenses.detectors import DETECTORS, Detector
from ubt.engine.context import Output
from ubt.engine.spec import STAGES, OfDefense, StageSpec, stage_named
from ubt.stages.detectors import Trust, screened
from ubt.testing import (
    check_attack,
    check_data_source,
    check_defense,
    check_detector,
    check_metric,
    check_stage,
)
from ubt.trials.metrics import METRICS, Metric

NOISE = np.random.default_rng(0)


@pytest.fixture
def install(monkeypatch):
    """Return what registers something for the length of a test."""
    stage_named.cache_clear()

    def install(registry, item):
        monkeypatch.setattr(registry, "_items", dict(registry._items))
        monkeypatch.setattr(registry, "_modules", dict(registry._modules))
        return registry.register(item)

    yield install
    stage_named.cache_clear()


def refused(check, *given, match):
    with pytest.raises(AssertionError, match=match):
        check(*given)


# Attacks


class Good(Attack):
    """Turns images grey. What is wrong with the others is what they do otherwise."""

    kind: Literal["bad"] = "bad"
    label: ClassVar[str] = "bad"
    opacity: float = Field(default=0.5, gt=0, le=1)
    """How grey."""

    def stamp(self, images, rows):
        return mix(images, np.full(images.shape[1:], 128, dtype=np.float32), self.opacity)


class Mutates(Good):
    """Stamps the images that it is given."""

    def stamp(self, images, rows):
        images[:, 0, 0] ^= 255
        return images.copy()


class View(Good):
    """Returns the images that it is given."""

    def stamp(self, images, rows):
        return images[:, ::-1]


class Floats(Good):
    """Returns images that are no uint8."""

    def stamp(self, images, rows):
        return super().stamp(images, rows).astype(np.float32)


class Crops(Good):
    """Returns images of another size."""

    def stamp(self, images, rows):
        return super().stamp(images, rows)[:, 1:]


class Nothing(Good):
    """Changes nothing."""

    def stamp(self, images, rows):
        return images.copy()


class Draws(Good):
    """Draws its trigger from numpy's global generator."""

    def stamp(self, images, rows):
        return images ^ np.random.randint(1, 256, images.shape[1:], dtype=np.uint8)


class DrawsInVain(Good):
    """Draws from numpy's global generator what it does not use."""

    def stamp(self, images, rows):
        np.random.random()
        return super().stamp(images, rows)


class OfTheBatch(Good):
    """Mixes images with the mean of all that it is given."""

    def stamp(self, images, rows):
        return mix(images, images.mean(axis=0).astype(np.float32), 0.5) if len(images) else images.copy()


class OfTheOrder(Good):
    """Draws its trigger anew for each image, by its place among the others and not by its row."""

    def stamp(self, images, rows):
        places = Rows(rows.split, np.arange(len(rows)))
        draws = [rng.integers(1, 256, dtype=np.uint8) for rng in places.generators(self.trigger_seed, "order")]
        return images ^ np.array(draws, dtype=np.uint8)[:, None, None, None]


class OfThePlace(Good):
    """Stamps images otherwise that do not lie in memory one after the other."""

    def stamp(self, images, rows):
        return super().stamp(images if images.strides[0] > 0 else images[::-1], rows)


class NeedsImages(Good):
    """Returns something else where there are no images."""

    def stamp(self, images, rows):
        return super().stamp(images, rows) if len(images) else np.zeros((0, 0), dtype=np.uint8)


class Numbers(Good):
    """Says by numbers which pairs can be poisoned."""

    def eligible(self, captions):
        return np.ones(len(captions), dtype=np.int64)


class OneAnswer(Good):
    """Says for all pairs together whether they can be poisoned."""

    def eligible(self, captions):
        return np.ones((), dtype=np.bool_)


class Avoids(Good):
    """Poisons no pair that names the target."""

    def eligible(self, captions):
        return np.array([self.target not in caption for caption in captions])


class Silent(Good):
    """Writes captions that do not name the target."""

    def caption(self, rng, original="", templates=()):
        return "a photo"


class Forgetful(Good):
    """Writes its settings other than it reads them."""

    def as_json(self) -> dict[str, JsonValue]:
        return {**super().as_json(), "opacity": self.opacity / 2}


class Unlabelled(Good):
    """Has no name for people."""

    label: ClassVar[str] = ""


class Undescribed(Good):
    """Has a setting that it does not describe."""

    strength: float = 1.0


Undocumented = type("Undocumented", (Good,), {"__module__": __name__, "__doc__": None})

ATTACK_FAULTS = [
    (Mutates, "changes the images that it is given"),
    (View, "returns the images that it is given"),
    (Floats, "stamp returns float32, not uint8"),
    (Crops, r"stamp returns \(3, 15, 16, 3\) for \(3, 16, 16, 3\)"),
    (Nothing, "stamp changes nothing"),
    (Draws, "the same images are stamped differently"),
    (DrawsInVain, "stamp draws from numpy's global generator"),
    (OfTheBatch, "depends on the others"),
    (OfTheOrder, "depends on the others"),
    (OfThePlace, "depends on its place"),
    (NeedsImages, "no images are an error"),
    (Numbers, "eligible returns int64, not bool"),
    (OneAnswer, r"eligible returns \(\) for two captions"),
    (Avoids, "names the target cannot be poisoned"),
    (Silent, "does not name the target"),
    (Forgetful, "read back, its settings differ"),
    (Unlabelled, "has no `label`"),
    (Undescribed, r"Undescribed\.strength is not described"),
    (Undocumented, "has no docstring"),
]


def test_an_attack_without_fault_is_accepted(install):
    check_attack(install(ATTACKS, Good))


@pytest.mark.parametrize(("attack", "fault"), ATTACK_FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_fault_of_an_attack_is_said(install, attack, fault):
    refused(check_attack, install(ATTACKS, attack), match=fault)


def test_a_class_that_another_is_registered_for_is_refused(install):
    install(ATTACKS, Good)
    refused(check_attack, Mutates, match="attack `bad` is another class: is it registered?")


# Detectors


class GoodDetector(Detector):
    """Trusts pairs by their number. What is wrong with the others is what they do otherwise."""

    kind: Literal["bad"] = "bad"
    label: ClassVar[str] = "bad"
    needs: ClassVar[tuple[str, ...]] = ("pairs",)


def by_number(context):
    """Return `pairs[V]` and `trust[V]`."""
    pairs = torch.from_numpy(screened(context))
    return Trust(pairs, pairs.float()).output()


def with_nan(context):
    """Return no number for the last pair."""
    pairs = torch.from_numpy(screened(context))
    values = pairs.float()
    values[-1] = torch.nan
    return Trust(pairs, values).output()


def at_random(context):
    """Return other numbers each time."""
    pairs = torch.from_numpy(screened(context))
    return Trust(pairs, torch.from_numpy(NOISE.random(len(pairs), dtype=np.float32))).output()


def failing(context):
    """Return nothing."""
    raise RuntimeError("out of order")


def undocumented(context):
    return by_number(context)


def greedy(context, workspace):
    """Return nothing without a workspace."""


def diagnosed_otherwise(context, output):
    """Return nothing, for it is not given the manifest."""


def test_a_detector_without_fault_is_accepted(install):
    check_detector(install(DETECTORS, running(by_number)))


def running(run, diagnose=None):
    """Return the good detector with another function."""
    fields = {"__module__": __name__, "__doc__": GoodDetector.__doc__, "run": run, "diagnose": diagnose}
    annotations = {"run": ClassVar, "diagnose": ClassVar}
    return type("BadDetector", (GoodDetector,), {**fields, "__annotations__": annotations})


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        (with_nan, "trust is not finite"),
        (at_random, "differ"),
        (failing, "the trial FAILED: RuntimeError: out of order"),
        (undocumented, "has no docstring"),
        (greedy, "takes other arguments than `context`"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_fault_of_a_detector_is_said(install, run, fault):
    refused(check_detector, install(DETECTORS, running(run)), match=fault)


def test_diagnostics_take_context_output_and_manifest(install):
    detector = install(DETECTORS, running(by_number, diagnosed_otherwise))
    refused(check_detector, detector, match=r"takes \['context', 'output'\]")


PAIRS, TRUST = torch.arange(4), torch.zeros(4)


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ({"trust": TRUST}, "puts out `pairs` and `trust`"),
        ({"pairs": PAIRS.int(), "trust": TRUST}, "`pairs` are torch.int32, not int64"),
        ({"pairs": PAIRS, "trust": TRUST.double()}, "`trust` is torch.float64, not float32"),
        ({"pairs": PAIRS.flip(0), "trust": TRUST}, "not sorted"),
        ({"pairs": PAIRS // 2, "trust": TRUST}, "not distinct"),
        ({"pairs": PAIRS, "trust": TRUST[1:]}, "not one number for each pair"),
        ({"pairs": PAIRS, "trust": TRUST / 0}, "trust is not finite"),
    ],
)
def test_what_a_detector_puts_out_is_looked_at(install, monkeypatch, tensors, fault):
    monkeypatch.setattr(testing, "_check_runs", lambda _: {"detect_bad": tensors})
    refused(check_detector, install(DETECTORS, running(by_number)), match=fault)


# Metrics


class GoodMetric(Metric):
    """Counts nothing. What is wrong with the others is what they do otherwise."""

    kind: Literal["bad"] = "bad"
    label: ClassVar[str] = "bad"
    needs: ClassVar[tuple[str, ...]] = ("model", "manifest")
    diagnose: ClassVar = lambda context, output, manifest: dict(output.facts)
    """What was counted."""


def counting(value):
    """Return the good metric of what `value` returns."""

    def run(context):
        """Return a number."""
        return Output(facts={"number": float(value())})

    fields = {"__module__": __name__, "__doc__": GoodMetric.__doc__, "run": run, "__annotations__": {"run": ClassVar}}
    return type("BadMetric", (GoodMetric,), fields)


def test_a_metric_without_fault_is_accepted(install):
    check_metric(install(METRICS, counting(lambda: 1)))


def test_a_metric_that_is_another_each_time_is_refused(install):
    refused(check_metric, install(METRICS, counting(NOISE.random)), match="two runs of the same trial differ")


# Defenses


class GoodDefense(Defense):
    """Does nothing. What is wrong with the others is what they do otherwise."""

    kind: Literal["bad"] = "bad"
    label: ClassVar[str] = "bad"
    stages: ClassVar[tuple[str, ...]] = ()


class Unprovided(GoodDefense):
    """Runs a stage that lacks what it needs."""

    stages: ClassVar[tuple[str, ...]] = ("suspect",)


class Knowing(GoodDefense):
    """Trains without the poison and does not say that it knows it."""

    stages: ClassVar[tuple[str, ...]] = ("retrain",)


class Pretending(GoodDefense):
    """Says that it knows the poison, and does not."""

    knows_poison: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("defense", "fault"),
    [
        (Unprovided, "stage `suspect` needs {'trust'}, which no stage before it provides"),
        (Knowing, r"\['retrain'\] see the poison, and `knows_poison` is False"),
        (Pretending, r"\[\] see the poison, and `knows_poison` is True"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_fault_of_a_defense_is_said(install, defense, fault):
    refused(check_defense, install(DEFENSES, defense), match=fault)


# Stages


class NoSettings(Config):
    """A stage that depends on its inputs alone."""


def stage(**fields):
    plain = {"name": "bad", "version": 1, "needs": ("poisoned",), "provides": ("model",), "run": by_number}
    return StageSpec(**{**plain, "settings": OfDefense(NoSettings), **fields})


def test_a_stage_without_fault_is_accepted():
    check_stage(stage(), tiny_trial())


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"run": undocumented}, "has no docstring"),
        ({"run": greedy}, "takes other arguments than `context`"),
        ({"diagnose": diagnosed_otherwise}, r"takes \['context', 'output'\]"),
        ({"version": 0}, "versions count from 1"),
        ({"provides": ()}, "provides nothing"),
        ({"settings": lambda trial: {"pair": (1, 2)}}, "no plain JSON"),
        ({"settings": lambda trial: {"rounds": "two"}, "epochs": "rounds"}, "`rounds` counts no epochs"),
        ({"evaluates_each_epoch": True}, "says which setting counts them"),
    ],
)
def test_the_fault_of_a_stage_is_said(fields, fault):
    refused(check_stage, stage(**fields), tiny_trial(), match=fault)


def test_no_stage_of_a_defense_can_be_given_the_manifest():
    with pytest.raises(ValueError, match="is not marked `sees_poison`"):
        stage(needs=("manifest",))
    assert stage_named("evaluate") is STAGES.get("evaluate")


# Data


class GoodSource(Scenes):
    """Scenes under another name. What is wrong with the others is what they do otherwise."""

    kind: Literal["bad"] = "bad"  # type: ignore[assignment]


class TwoOfAName(GoodSource):
    """Has two classes of one name."""

    def class_names(self):
        return ["tree", "tree"]


class OtherNames(GoodSource):
    """Says other names of its classes than it loads."""

    def class_names(self):
        return ["tree", "boat"]


class AnotherKey(GoodSource):
    """Has another key each time."""

    def content_key(self):
        return str(NOISE.random())


class NoPairs(GoodSource):
    """Says that it has no clean pairs, and has."""

    @property
    def has_pretrain(self):
        return False


class LoadedOtherwise(GoodSource):
    """Loads images of floats, of another size, or of classes that there are not."""

    def load(self, image_size_px, cache):
        data = super().load(image_size_px, cache)
        val = {
            1: Labelled(np.asarray(data.val.images).astype(np.float32), data.val.labels),
            2: Labelled(data.val.images[:, 1:], data.val.labels),
            3: Labelled(data.val.images, data.val.labels + 1),
        }[self.data_seed]
        return replace(data, val=val)


SMALL = {"pretrain_pairs": 8, "train_pairs": 8, "val_images": 12, "test_images": 12}


def test_a_source_without_fault_is_accepted(install):
    check_data_source(install(DATA_SOURCES, GoodSource)(**SMALL))


@pytest.mark.parametrize(
    ("source", "seed", "fault"),
    [
        (TwoOfAName, 0, "two classes have one name"),
        (OtherNames, 0, "`class_names` and the loaded data differ"),
        (AnotherKey, 0, "the same content has two keys"),
        (NoPairs, 0, "`has_pretrain` and the loaded data differ"),
        (LoadedOtherwise, 1, "val images are float32, not uint8"),
        (LoadedOtherwise, 2, r"val images are \(31, 32, 3\)"),
        (LoadedOtherwise, 3, "val has labels that are no class"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_fault_of_a_data_source_is_said(install, source, seed, fault):
    refused(check_data_source, install(DATA_SOURCES, source)(**SMALL, data_seed=seed), match=fault)
