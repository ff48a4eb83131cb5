"""Every attack, defense, detector, metric, stage and data source of the package keeps the contract of `ubt.testing`."""

from pathlib import Path

import pytest

from ubt.attacks import ATTACKS
from ubt.config.base import kind_of
from ubt.data.scenes import Scenes
from ubt.defenses import DEFENSES
from ubt.defenses.detectors import DETECTORS
from ubt.testing import TINY, check_attack, check_data_source, check_defense, check_detector, check_metric
from ubt.trials.metrics import METRICS

SAMPLES = {
    "image": Path(__file__).parent / "attacks" / "trigger.png",
    "grid": Path(__file__).parent / "attacks" / "grid.pt",
}
"""For attacks whose trigger lies in a file."""


@pytest.mark.parametrize("attack", list(ATTACKS), ids=kind_of)
def test_every_attack_keeps_the_contract(attack):
    check_attack(attack, {name: SAMPLES[name] for name in attack.path_fields})


TUNED = ("finetune", "cleanclip", "par")
QUICK = {
    "ubt": TINY["defense"],
    "abl": {"isolate_epochs": 1, "isolate_batch_size": 100, "ascend_epochs": 1, "ascend_batch_size": 32},
    **{kind: {f"{kind}_epochs": 1, f"{kind}_batch_size": 20, "clean_pairs": 40} for kind in TUNED},
}
"""Kind of a defense → settings that take a second on the tiny victim, where the default ones take longer."""


@pytest.mark.parametrize("defense", list(DEFENSES), ids=kind_of)
def test_every_defense_keeps_the_contract(defense):
    check_defense(defense, QUICK.get(kind_of(defense)))


@pytest.mark.parametrize("detector", list(DETECTORS), ids=kind_of)
def test_every_detector_keeps_the_contract(detector):
    check_detector(detector)


@pytest.mark.parametrize("metric", list(METRICS), ids=kind_of)
def test_every_metric_keeps_the_contract(metric):
    check_metric(metric)


def test_scenes_keep_the_contract_of_data():
    check_data_source(Scenes(pretrain_pairs=8, train_pairs=8, val_images=12, test_images=12))
