"""Run folders that nothing has computed, of any shape: what reports are measured, tested and pictured with.

python benchmarks/made_runs.py FOLDER [--kind search|ablation|comparison] [--trials 1300] [--seeds 1] [--knobs 2]

Records are those of the package, with every stage, epoch and count that a sweep writes; the numbers are made up, as
a smooth function of the knobs with the noise of so many images. They say so: their commit is `made-up`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ubt.common.statistics import wilson_interval
from ubt.config import set_path
from ubt.trials.labels import BASE, ComparisonCell, TrialLabel
from ubt.trials.rates import PerClass, Rates
from ubt.trials.record import Attempt, EpochRecord, StageRecord, State, TrialRecord, write_record

Kind = Literal["search", "ablation", "comparison"]
IMAGES = 1000
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TARGET = 9
WORKERS = 8

DEFENSE: dict[str, Any] = {
    "kind": "ubt",
    "suspicious_ratio": 0.01,
    "overfit_epochs": 3,
    "token_threshold": 0.1,
    "unlearn_samples": 64,
    "unlearn_epochs": 4,
    "unlearn_learning_rate": 2e-4,
    "unlearn_batch_size": 8,
    "unlearn_margin": 0.0,
    "unlearn_scope": "token",
    "retain_weight": 4.0,
    "retain_ratio": 0.5,
    "retain_samples": 1024,
    "retain_batch_size": 16,
    "overfit_learning_rate": 1e-4,
    "overfit_batch_size": 8,
    "overfit_data": "suspicious",
    "attribution_layers": "all",
    "screened_ratio": 1.0,
    "detector": {"kind": "clean"},
    "select_margin": 0.0,
}
VICTIM: dict[str, Any] = {
    "data": {"kind": "cifar10", "train_pairs": 50000, "data_seed": 0},
    "model": {"name": "RN50", "pretrained": "openai", "activation": "auto", "precision": "auto"},
    "attack": {"kind": "badnets", "target": "truck", "poison_rate": 0.01, "patch_fraction": 0.16},
    "implant": {"epochs": 5, "learning_rate": 1e-5, "batch_size": 64, "warmup_steps": 20},
}
VALUES: dict[str, Sequence[Any]] = {
    "suspicious_ratio": (0.005, 0.01, 0.02, 0.05, 0.1),
    "unlearn_samples": (16, 32, 64, 128, 256, 512),
    "overfit_epochs": (1, 2, 3, 5, 8),
    "token_threshold": (0.05, 0.1, 0.2, 0.3),
    "unlearn_learning_rate": (5e-5, 1e-4, 2e-4, 5e-4, 1e-3),
    "retain_weight": (1.0, 2.0, 4.0, 8.0),
    "detector": ({"kind": "clean"}, {"kind": "knn", "neighbours": 16}, {"kind": "abl"}),
    "unlearn_scope": ("token", "caption"),
    "overfit_data": ("suspicious", "all"),
    "unlearn_batch_size": (4, 8, 16, 32),
    "unlearn_margin": (0.0, 0.1, 0.2),
    "retain_ratio": (0.25, 0.5, 1.0),
    "retain_samples": (256, 1024, 4096),
    "retain_batch_size": (8, 16, 32),
    "overfit_learning_rate": (5e-5, 1e-4, 2e-4),
    "overfit_batch_size": (4, 8, 16),
    "attribution_layers": ("all", "last"),
    "screened_ratio": (0.5, 1.0),
    "select_margin": (0.0, 0.05, 0.1),
    "unlearn_epochs": (2, 4, 6),
}
COMPONENTS = {
    "no-overfit": "without overfitting",
    "whole-caption": "whole captions instead of tokens",
    "no-retain": "without retaining",
    "all-pairs": "overfitting to all pairs",
    "random-selection": "random pairs instead of the most similar",
    "no-attribution": "without attribution",
}
DEFENSES = {"abl": "ABL", "cleanclip": "CleanCLIP", "finetune": "fine-tuning", "ubt": "UBT"}
ATTACKS = ("badnets", "blended", "sig")


@cache
def interval(hits: int, images: int) -> tuple[float, float]:
    """Return Wilson's interval; scipy takes a while for each."""
    return wilson_interval(hits, images)


class Maker:
    """Makes records of one run, each from its configuration and seed."""

    def __init__(self, study: str, chance: bool = False, attacked: bool = True) -> None:
        self._study = study
        self._chance = chance
        self._attacked = attacked
        self._met: set[str] = set()
        self._free = [datetime(2026, 1, 5, 8, tzinfo=UTC)] * WORKERS

    def record(
        self,
        number: int,
        seed: int,
        changes: Mapping[str, Any],
        state: State = State.DONE,
        seeds: int = 1,
        victim: Mapping[str, Any] | None = None,
        worse: float = 0.0,
        **fields: object,
    ) -> TrialRecord:
        """Return the record of one trial."""
        config: dict[str, Any] = {"victim": VICTIM | (victim or {}), "defense": DEFENSE, "metrics": []}
        for path, value in changes.items():
            config = set_path(config, path, value)
        rng = np.random.default_rng([number, seed, 7])
        asr, ca = self._truth(config["defense"], seed, worse)
        done = state is State.DONE
        worker = int(np.argmin([time.timestamp() for time in self._free]))
        began = self._free[worker] + timedelta(seconds=2)
        stages, ended = self._stages(config, seed, asr, ca, rng, began, f"node-{worker // 4}", number, state)
        self._free[worker] = ended
        trial = f"t{number // seeds:04d}-s{seed}" if seeds > 1 else f"t{number:04d}"
        poisoned = (0.965 if not self._chance else 0.1, 0.62 if not self._chance else 0.1)
        reason = {
            State.FAILED: "CUDA out of memory: 2.00 GiB were asked for.\n`unlearn_batch_size` may be lowered.",
            State.PRUNED: "after epoch 2 of 4 its ASR was above the median of `unlearn`",
        }.get(state, "")
        known: dict[str, Any] = {
            "poisoned_val": self._rates(poisoned[0], poisoned[1], rng, "val"),
            "poisoned_test": self._rates(poisoned[0], poisoned[1], rng, "test", counted=True),
        }
        if done:
            known |= {
                "val": stages[-2].epochs[-1].val,
                "test": self._rates(asr, ca, rng, "test", counted=True),
            }
        return TrialRecord.model_validate(
            {
                "study": self._study,
                "trial": trial,
                "number": number,
                "seed": seed,
                "config": config,
                "changes": dict(changes),
                "state": state,
                "reason": reason,
                "fault": "OutOfMemoryError" if state is State.FAILED else "",
                "lost": state is State.FAILED,
                "stages": stages,
                "classes": CLASSES,
                "device": "cuda",
                "device_kind": "NVIDIA A100-SXM4-40GB",
                "commit": "made-up",
                "versions": {"ubt-sweeper": "0.2.0", "torch": "2.15.0", "open_clip_torch": "3.3.0"},
                "started_at": began.isoformat(timespec="milliseconds"),
                "seconds": (ended - began).total_seconds(),
                "attempts": (Attempt(started_at=began.isoformat(), node=f"node-{worker // 4}"),),
            }
            | known
            | fields
        )

    def _truth(self, defense: Mapping[str, Any], seed: int, worse: float) -> tuple[float, float]:
        """Return the rates that an infinity of images would show."""
        if self._chance:
            return 0.1, 0.1
        noise = np.random.default_rng([seed, 99]).normal(0, 0.008, 2)
        samples, ratio = float(defense["unlearn_samples"]), float(defense["suspicious_ratio"])
        strength = np.log2(samples / 16) / 5 + 0.4 * (float(defense["unlearn_learning_rate"]) / 2e-4) ** 0.5
        found = np.exp(-((np.log10(ratio / 0.02)) ** 2))
        token = 0.12 if defense["unlearn_scope"] != "token" else 0.0
        overfit = 0.08 * min(3, float(defense["overfit_epochs"]))
        asr = 0.96 * np.exp(-2.2 * strength * found * (0.5 + overfit)) + 0.02 + worse
        ca = 0.615 - 0.05 * strength**2 * (1.4 - found) - token - 0.02 * (float(defense["retain_weight"]) < 2)
        return float(np.clip(asr + noise[0], 0.002, 0.995)), float(np.clip(ca + noise[1], 0.02, 0.95))

    def _rates(self, asr: float, ca: float, rng: np.random.Generator, split: str, counted: bool = False) -> Rates:
        each = IMAGES // len(CLASSES)
        spread = rng.normal(0, 0.04, len(CLASSES))
        correct = [int(rng.binomial(each, np.clip(ca + bias, 0.01, 0.99))) for bias in spread]
        hits = [0 if at == TARGET else int(rng.binomial(each, asr)) for at in range(len(CLASSES))]
        triggered = [0 if at == TARGET else each for at in range(len(CLASSES))]
        right, taken, shown = sum(correct), sum(hits), sum(triggered)
        low, high = interval(right, IMAGES)
        rates: dict[str, Any] = {"ca": right / IMAGES, "ca_images": IMAGES, "ca_low": low, "ca_high": high}
        rates |= {"split": split, "ca_top5": min(1.0, right / IMAGES + 0.3)}
        if self._attacked:
            low, high = interval(taken, shown)
            rates |= {"asr": taken / shown, "asr_images": shown, "asr_low": low, "asr_high": high}
            rates["triggered_accuracy"] = (1 - taken / shown) * ca
        if counted:
            images = (each,) * len(CLASSES)
            of_attack = {"triggered": tuple(triggered), "hits": tuple(hits)} if self._attacked else {}
            rates["per_class"] = PerClass(images=images, correct=tuple(correct), **of_attack)
        return Rates.model_validate(rates)

    def _stages(
        self,
        config: Mapping[str, Any],
        seed: int,
        asr: float,
        ca: float,
        rng: np.random.Generator,
        began: datetime,
        node: str,
        number: int,
        state: State,
    ) -> tuple[tuple[StageRecord, ...], datetime]:
        defense, victim = config["defense"], json.dumps(config["victim"], sort_keys=True)
        ratio = defense["suspicious_ratio"]
        suspects = f"{seed}{victim}{defense['detector']}{ratio}"
        overfit = f"{suspects}{defense['overfit_epochs']}{defense['overfit_data']}{defense['overfit_learning_rate']}"
        selected = f"{overfit}{defense['unlearn_samples']}"
        plan: list[tuple[str, str, float, Callable[[], Mapping[str, float]]]] = [
            ("poison", f"{seed}{victim}", 3, lambda: {"pairs": 50000.0}),
            ("implant", f"{seed}{victim}", 600, dict),
            (f"detect_{defense['detector']['kind']}", f"{seed}{victim}{defense['detector']}", 40, dict),
            ("suspect", suspects, 1, lambda: {"pairs": 5e4 * ratio, "recall": min(1.0, 0.4 + 8 * ratio)}),
            ("overfit", overfit, 30 * defense["overfit_epochs"], lambda: {"auroc": 0.72 + 0.08 * rng.random()}),
            ("select", selected, 1, lambda: {"purity": max(0.05, 0.95 - 4 * ratio)}),
            ("attribute", f"{selected}{defense['attribution_layers']}", 12, lambda: {"target_share": 0.35}),
            ("unlearn", f"{number} {seed}", 25 * defense["unlearn_epochs"], dict),
            ("evaluate", f"{number} {seed}", 15, dict),
        ]
        if state is not State.DONE:
            plan = plan[: {State.RUNNING: 6, State.FAILED: 7}.get(state, 8)]
        stages, at = list[StageRecord](), began
        for name, key, seconds, found in plan:
            reused = f"{name} {key}" in self._met
            self._met.add(f"{name} {key}")
            start, at = at, at + timedelta(seconds=0.05 if reused else seconds)
            complete = state is State.DONE or name != plan[-1][0]
            stages.append(
                StageRecord(
                    stage=name,
                    key=f"{abs(hash((name, key))) % 16**12:032x}",
                    reused=reused,
                    seconds=seconds,
                    own_seconds=0.9 * seconds,
                    spent_seconds=0.0 if reused else seconds,
                    complete=complete,
                    peak_memory_bytes=6_000_000_000,
                    node=node,
                    started_at=start.isoformat(timespec="milliseconds"),
                    ended_at=at.isoformat(timespec="milliseconds") if complete else "",
                    computed_by=f"{self._study}/t{number:04d}",
                    diagnostics=dict(found()),
                    epochs=tuple(self._epochs(name, defense, asr, ca, rng, state)),
                )
            )
        return tuple(stages), at

    def _epochs(
        self, stage: str, defense: Mapping[str, Any], asr: float, ca: float, rng: np.random.Generator, state: State
    ) -> Iterator[EpochRecord]:
        number = {"implant": 5, "overfit": defense["overfit_epochs"], "unlearn": defense["unlearn_epochs"]}.get(
            stage, 0
        )
        for epoch in range(1, (min(2, number) if state is State.PRUNED else number) + 1):
            share = (epoch / number) ** 0.5
            rates = self._rates(0.965 + share * (asr - 0.965), 0.62 + share * (ca - 0.62), rng, "val")
            judged = stage == "unlearn"
            loss = float(2 / epoch + rng.normal(0, 0.02))
            yield EpochRecord(epoch=epoch, seconds=25.0, loss=loss, val=rates if judged else None)


def search(maker: Maker, trials: int, seeds: int, knobs: int, **_: object) -> Iterator[TrialRecord]:
    """Yield the trials of a random search; 1 in 50 failed, 1 in 25 was stopped."""
    rng, paths = np.random.default_rng(0), list(VALUES)[:knobs]
    for at in range(max(1, trials // seeds)):
        # Where few knobs have few combinations, numbers are drawn between their ends.
        drawn = {f"defense.{name}": _drawn(VALUES[name], rng, between=knobs < 4) for name in paths}
        changes = (
            {path: value for path, value in drawn.items() if value != DEFENSE[path.partition(".")[2]]} if at else {}
        )
        state = State.FAILED if at % 50 == 49 else State.PRUNED if at % 25 == 24 else State.DONE
        for seed in range(seeds):
            yield maker.record(at * seeds + seed, seed, changes, state, seeds, asked_as=f"optuna/{at}")


def _drawn(values: Sequence[Any], rng: np.random.Generator, between: bool) -> object:
    low, high = values[0], values[-1]
    if not between or not isinstance(low, int | float):
        return values[rng.integers(len(values))]
    value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return round(value) if isinstance(low, int) else float(f"{value:.3g}")


def ablation(maker: Maker, seeds: int, **_: object) -> Iterator[TrialRecord]:
    """Yield the base and one trial without each component, under every seed."""
    alone: dict[str, dict[str, Any]] = {
        "no-overfit": {"defense.overfit_epochs": 0},
        "whole-caption": {"defense.unlearn_scope": "caption"},
        "no-retain": {"defense.retain_weight": 0.0},
        "all-pairs": {"defense.overfit_data": "all"},
        "random-selection": {"defense.suspicious_ratio": 0.1},
        "no-attribution": {"defense.attribution_layers": "last"},
    }
    for at, (component, words) in enumerate({BASE: BASE, **COMPONENTS}.items()):
        for seed in range(seeds):
            label = TrialLabel(component=component, words=words)
            yield maker.record(at * seeds + seed, seed, alone.get(component, {}), seeds=seeds, label=label)


def comparison(maker: Maker, seeds: int, **_: object) -> Iterator[TrialRecord]:
    """Yield the table of four defenses against three attacks, and the search of each defense before it."""
    number = 0
    for defense, worse in zip(DEFENSES, (0.3, 0.15, 0.4, 0.0), strict=True):
        for samples in (32, 64, 128):
            cell = ComparisonCell(phase="search", defense=defense, attack="badnets")
            changes = {"defense.unlearn_samples": samples, "defense.kind": defense}
            yield maker.record(number, 0, changes, label=TrialLabel(cell=cell), worse=worse)
            number += 1
    for defense, worse in zip(DEFENSES, (0.3, 0.15, 0.4, 0.0), strict=True):
        for attack in ATTACKS:
            victim = {"attack": VICTIM["attack"] | {"kind": attack}}
            for seed in range(seeds):
                cell = ComparisonCell(phase="table", defense=defense, attack=attack)
                changes = {"defense.unlearn_samples": 128, "defense.kind": defense, "victim.attack.kind": attack}
                more = worse + 0.2 * (attack == "sig") * (defense != "ubt")
                yield maker.record(number, seed, changes, label=TrialLabel(cell=cell), worse=more, victim=victim)
                number += 1


KINDS: dict[Kind, Callable[..., Iterator[TrialRecord]]] = {
    "search": search,
    "ablation": ablation,
    "comparison": comparison,
}
DESIGNS: dict[Kind, str] = {"search": "optuna", "ablation": "leave_one_out", "comparison": "comparison"}


def make_run(
    folder: Path,
    kind: Kind = "search",
    trials: int = 1300,
    seeds: int = 1,
    knobs: int = 2,
    chance: bool = False,
    running: int = 0,
) -> Path:
    """Write a run folder: its study, and the record of each trial; the last `running` ones still run."""
    folder.mkdir(parents=True, exist_ok=True)
    space = {f"defense.{name}": list(values) for name, values in list(VALUES.items())[:knobs]}
    search: dict[str, Any] = {"design": DESIGNS[kind], "space": space if kind == "search" else None}
    if kind == "ablation":
        search["components"] = list(COMPONENTS)
    study = {
        "name": kind,
        "victim": VICTIM,
        "defense": DEFENSE,
        "seeds": list(range(seeds)),
        "objectives": {"ca_floor": 0.02},
        "search": search,
    }
    (folder / "study.json").write_text(json.dumps(study, indent=1))
    (folder / "records").mkdir(exist_ok=True)
    made = list(KINDS[kind](Maker(kind, chance), trials=trials, seeds=seeds, knobs=knobs))
    for at, record in enumerate(made):
        if running and at >= len(made) - running:
            stages = record.stages[:5]
            update = {"state": State.RUNNING, "val": None, "test": None, "stages": stages, "reason": ""}
            record = record.model_copy(update=update)  # noqa: PLW2901 — as it was while it ran
        write_record(folder / "records", record)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=tuple(KINDS), default="search")
    parser.add_argument("--trials", type=int, default=1300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--knobs", type=int, default=2)
    parser.add_argument("--chance", action="store_true", help="a victim and a defense that classify by chance")
    parser.add_argument("--running", type=int, default=0, help="so many trials are not done yet")
    print(make_run(**vars(parser.parse_args())))
