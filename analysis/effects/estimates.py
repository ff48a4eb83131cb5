"""How large an effect is: paired differences with intervals, corrected for their number, and the chain beside them.

The same seed makes the same victim, so a seed's difference between two configurations is free of what the victim
contributes to both. Student's interval over the seeds' differences holds their mean 95 times in 100 however few they
are; under one seed only the sampling of images is known, and the interval is Newcombe's of two rates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from analysis.effects.contrasts import Contrast, Term, contrasts
from analysis.findings import Findings
from analysis.points.configurations import Configuration, Estimate
from ubt.common.statistics import difference_interval, holm, t_test
from ubt.trials.rates import Rates
from ubt.trials.record import TrialRecord

SIGNIFICANT = 0.05
"""The chance that is allowed of any false claim in a column of a table."""

Split = Literal["test", "val"]


@dataclass(frozen=True)
class Difference:
    """What a change does to a rate, as a fraction: above 0 it raises it."""

    mean: float
    low: float
    """Lower end of the 95 % interval, …"""
    high: float
    """… and the upper one. Of each effect by itself, not corrected for their number."""
    spread: Literal["seeds", "images"]
    """What the interval is of: the spread of seeds, or, under one seed or where seeds show none, that of images."""
    p: float | None = None
    """Of no effect, by the paired t-test; None unless seeds differ."""
    p_holm: float | None = None
    """The same, corrected for the number of effects on this rate (Holm)."""
    values: tuple[float, ...] = ()
    """That of each seed, of which `mean` is the mean."""

    @property
    def significant(self) -> bool:
        """Return whether an effect this large is unlikely to be chance, among as many as were looked at."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANT


@dataclass(frozen=True)
class ChainMetric:
    """A diagnostic of a stage under a change, the mean over seeds, and how far that is from without the change."""

    mean: float | None
    """None where the change leaves the stage out, or nothing is known of it."""
    difference: float | None


@dataclass(frozen=True)
class Effect:
    """One contrast with what came of it."""

    contrast: Contrast
    seeds: tuple[int, ...]
    """The seeds that both sides were measured under; none if the effect is not known."""
    settings: int
    """Over how many choices of the other settings it is the mean, of those that were run."""
    asr: Difference | None
    """None if no attack is known."""
    ca: Difference | None
    chain: Mapping[str, ChainMetric]
    """What the stages on the way to the defended model show, by the names of `CHAIN`; of interactions nothing."""


@dataclass(frozen=True)
class Effects:
    """What a run says of causes."""

    split: Split
    """What the effects are measured on: the test split, if all trials of the table were."""
    effects: tuple[Effect, ...]
    interactions: tuple[Effect, ...]

    def __bool__(self) -> bool:
        return bool(self.effects)

    @property
    def seeds(self) -> int:
        """Return how many pairs of seeds the best measured effect has."""
        return max((len(effect.seeds) for effect in self.effects), default=0)

    @property
    def chain(self) -> tuple[str, ...]:
        """Return the names of the chain's metrics that are known of any effect."""
        known = {name for effect in self.effects for name, metric in effect.chain.items() if metric.mean is not None}
        return tuple(name for name in CHAIN if name in known)


CHAIN: Mapping[str, tuple[str, str]] = {
    "recall": ("suspect", "recall"),
    "AUROC": ("overfit", "auroc"),
    "purity": ("select", "purity"),
    "tokens": ("attribute", "target_share"),
}
"""What is shown of the chain → the stage that it is of, and its diagnostic: the share of poison that is suspected; how
well the overfitted model tells it apart; the share of it in the selection; the share of relevance on the target's
name."""


def find_effects(findings: Findings) -> Effects:
    """Work out the effects of a run; of one that holds no contrasts, none."""
    found = contrasts(findings)
    measured = {
        trial.trial: trial
        for contrast in (*found.effects, *found.interactions)
        for term in contrast.terms
        for configuration in term.configurations
        for trial in configuration.measured
    }
    split: Split = "test" if measured and all(trial.test for trial in measured.values()) else "val"
    return Effects(split, _corrected(found.effects, split), _corrected(found.interactions, split))


def _corrected(found: Sequence[Contrast], split: Split) -> tuple[Effect, ...]:
    effects = [effect_of(contrast, split) for contrast in found]
    asr, ca = _holm([effect.asr for effect in effects]), _holm([effect.ca for effect in effects])
    return tuple(replace(effect, asr=a, ca=c) for effect, a, c in zip(effects, asr, ca, strict=True))


def _holm(found: Sequence[Difference | None]) -> list[Difference | None]:
    known = [one.p for one in found if one and one.p is not None]
    corrected = iter(holm(known))
    return [replace(one, p_holm=next(corrected)) if one and one.p is not None else one for one in found]


def effect_of(contrast: Contrast, split: Split) -> Effect:
    """Return what came of one contrast on a split, as if no other had been looked at: p is not corrected."""
    replicates = {
        id(configuration): {trial.seed: trial for trial in configuration.measured}
        for term in contrast.terms
        for configuration in term.configurations
    }
    terms, seeds = _complete(contrast.terms, replicates)

    def difference(rate: Callable[[Rates], tuple[float, float, float] | None]) -> Difference | None:
        def of(configuration: Configuration, seed: int) -> Estimate | None:
            rates = configuration.rates(split).get(seed)
            found = rate(rates) if rates else None
            return Estimate(*found) if found else None

        return _difference(terms, seeds, of)

    return Effect(
        contrast,
        seeds,
        len(terms),
        asr=difference(lambda rates: rates.attacked),
        ca=difference(lambda rates: (rates.ca, rates.ca_low, rates.ca_high)),
        chain=_chain(terms, seeds, replicates),
    )


Replicates = Mapping[int, Mapping[int, TrialRecord]]
"""The number of a configuration's object → its measured trials by seed."""


def _complete(terms: Sequence[Term], replicates: Replicates) -> tuple[tuple[Term, ...], tuple[int, ...]]:
    """Return the terms and seeds to take, such that each term is measured under each of the seeds.

    A seed under which nothing was measured (its victim failed) is left out; else it is the terms that lack a seed, so
    that all seeds are means over the same settings.
    """
    paired = [frozenset.intersection(*(frozenset(replicates[id(c)]) for c in term.configurations)) for term in terms]
    seeds = frozenset[int]().union(*paired)
    if seeds not in paired:
        seeds = max(paired, key=len, default=seeds)
    return tuple(t for t, has in zip(terms, paired, strict=True) if has >= seeds), tuple(sorted(seeds))


def _difference(
    terms: Sequence[Term], seeds: Sequence[int], of: Callable[[Configuration, int], Estimate | None]
) -> Difference | None:
    """Return the effect on one rate; None if it is not known of every configuration and seed."""
    sides = {seed: [_sides(term, seed, of) for term in terms] for seed in seeds}
    known = {seed: [side for side in found if side] for seed, found in sides.items()}
    if not seeds or not terms or any(len(found) < len(terms) for found in known.values()):
        return None
    # Rounded, as seeds that differ in nothing may differ by the dust of binary fractions.
    values = [round(fmean(plus.mean - minus.mean for plus, minus in found), 12) for found in known.values()]
    if len(set(values)) > 1:
        mean, low, high, p = t_test(values)
        return Difference(mean, low, high, "seeds", p, values=tuple(values))
    # One seed, or seeds that differ in nothing: what is left is that each rate is of a sample of images. The mean of
    # intervals is that of the mean, as if all its errors had one cause.
    intervals = [difference_interval(_ends(plus), _ends(minus)) for found in known.values() for plus, minus in found]
    mean, low, high = (fmean(part) for part in zip(*intervals, strict=True))
    return Difference(mean, low, high, "images", values=tuple(values))


def _sides(
    term: Term, seed: int, of: Callable[[Configuration, int], Estimate | None]
) -> tuple[Estimate, Estimate] | None:
    """Return the sums of the rates on both sides of a term; None if one is not known."""
    plus, minus = ([of(configuration, seed) for configuration in side] for side in (term.plus, term.minus))
    known_plus, known_minus = [one for one in plus if one], [one for one in minus if one]
    if len(known_plus) < len(plus) or len(known_minus) < len(minus):
        return None
    return _sum(known_plus), _sum(known_minus)


def _sum(rates: Sequence[Estimate]) -> Estimate:
    """Return a sum of rates; errors of rates under one seed add up in squares."""
    mean = sum(rate.mean for rate in rates)
    below, above = (sum((getattr(r, end) - r.mean) ** 2 for r in rates) ** 0.5 for end in ("low", "high"))
    return Estimate(mean, mean - below, mean + above)


def _ends(rate: Estimate) -> tuple[float, float, float]:
    return rate.mean, rate.low, rate.high


def _chain(terms: Sequence[Term], seeds: Sequence[int], replicates: Replicates) -> Mapping[str, ChainMetric]:
    if any(len(term.plus) > 1 for term in terms):
        return {}
    return {name: _metric(terms, seeds, replicates, *place) for name, place in CHAIN.items()}


def _metric(
    terms: Sequence[Term], seeds: Sequence[int], replicates: Replicates, stage: str, diagnostic: str
) -> ChainMetric:
    def mean(configurations: Sequence[Configuration]) -> float | None:
        found = [_diagnostic(replicates[id(c)][seed], stage, diagnostic) for c in configurations for seed in seeds]
        known = [value for value in found if value is not None]
        return fmean(known) if known and len(known) == len(found) else None

    plus = mean([configuration for term in terms for configuration in term.plus])
    minus = mean([configuration for term in terms for configuration in term.minus])
    return ChainMetric(plus, None if plus is None or minus is None else plus - minus)


def _diagnostic(record: TrialRecord, stage: str, diagnostic: str) -> float | None:
    return next((found.diagnostics.get(diagnostic) for found in record.stages if found.stage == stage), None)
