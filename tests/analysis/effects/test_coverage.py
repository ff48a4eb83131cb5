"""Synthetic ablation studies with known effects: how often the table's intervals hold them, and how often it errs."""

from pathlib import Path

import numpy as np
import pytest

from analysis.effects import find_effects
from analysis.findings import Findings
from analysis.points.configurations import Configuration
from analysis.records import RunRecords
from ubt.trials.labels import TrialLabel
from ubt.trials.rates import Rates
from ubt.trials.record import State, TrialRecord

STUDIES, SEEDS, IMAGES = 1000, 5, 1000
EFFECTS = {"a": (0.15, 0.0), "b": (0.03, -0.02), "c": (-0.1, 0.03), "d": (0.0, -0.12), "e": (0.0, 0.0)}
"""Component → what leaving it out does to ASR and CA."""


def study_of(rng: np.random.Generator, effects: dict[str, tuple[float, float]], seeds: int = SEEDS) -> Findings:
    """Return one study: victims differ by 5 points, an effect by 2 points from seed to seed, and images are drawn."""
    victims = np.array([0.35, 0.75]) + rng.normal(0, 0.05, (seeds, 2))
    configurations = []
    for number, (name, effect) in enumerate({"base": (0.0, 0.0), **effects}.items()):
        rates = rng.binomial(IMAGES, np.clip(victims + effect + rng.normal(0, 0.02, (seeds, 2)), 0, 1)) / IMAGES
        trials = tuple(_trial(number, seed, name, *rates[seed]) for seed in range(seeds))
        configurations.append(Configuration(trials, trials, None, None, None, None))
    records = tuple(trial for configuration in configurations for trial in configuration.trials)
    run = RunRecords(Path("nowhere"), "synthetic", 0.02, (), records, design="leave_one_out")
    return Findings(run, tuple(configurations), (), None)


def _trial(number: int, seed: int, name: str, asr: float, ca: float) -> TrialRecord:
    # Unchecked: a thousand studies have thirty thousand trials.
    ends = {f"{rate}_{end}": value for rate, value in (("asr", asr), ("ca", ca)) for end in ("low", "high")}
    rates = Rates.model_construct(asr=asr, ca=ca, asr_images=IMAGES, ca_images=IMAGES, **ends)
    changed = {} if name == "base" else {"defense.component": name}
    return TrialRecord.model_construct(
        trial=f"t{number}-s{seed}",
        number=number,
        seed=seed,
        config={"defense": {"component": name}},
        changes=changed,
        label=TrialLabel(component=name),
        state=State.DONE,
        val=rates,
        test=rates,
    )


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def held():
    """Whether each interval held its effect, `[STUDIES, effects, 2]`; and whether each effect was called clear."""
    rng = np.random.default_rng(13)
    inside, clear = [], []
    for _ in range(STUDIES):
        found = find_effects(study_of(rng, EFFECTS)).effects
        pairs = [
            (rate, true)
            for e, truth in zip(found, EFFECTS.values(), strict=True)
            for rate, true in zip((e.asr, e.ca), truth, strict=True)
        ]
        inside.append([rate.low <= true <= rate.high for rate, true in pairs])
        clear.append([rate.significant for rate, _ in pairs])
    shape = (STUDIES, len(EFFECTS), 2)
    return np.array(inside).reshape(shape), np.array(clear).reshape(shape)


def test_intervals_hold_the_known_effects_in_95_of_100_studies(held):
    inside, _ = held
    assert inside.mean() == pytest.approx(0.95, abs=0.01)
    assert inside.mean(axis=0) == pytest.approx(np.full((len(EFFECTS), 2), 0.95), abs=0.02)


def test_what_has_no_effect_is_called_clear_in_at_most_5_of_100_studies(held):
    _, clear = held
    none = [(at, rate) for at, truth in enumerate(EFFECTS.values()) for rate in (0, 1) if truth[rate] == 0]
    for rate in (0, 1):
        false = np.any([clear[:, at, rate] for at, of in none if of == rate], axis=0)
        assert false.mean() <= 0.05


def test_large_effects_are_called_clear(held):
    _, clear = held
    assert clear[:, list(EFFECTS).index("a"), 0].mean() > 0.9
    assert clear[:, list(EFFECTS).index("d"), 1].mean() > 0.9
