"""The stages that come with the package, but for those of detectors and metrics, which are their own rows.

A new stage is a function and one row here; one of another distribution an entry point in the group `ubt.stages`. Loads
no torch.
"""

from __future__ import annotations

from pathlib import Path

from ubt.defenses.baselines import (
    AscendSettings,
    CleanclipSettings,
    FinetuneSettings,
    IsolateSettings,
    ParSettings,
    RankSettings,
)
from ubt.defenses.reference import InterpolateSettings
from ubt.defenses.ubt import AttributeSettings, OverfitSettings, SelectSettings, SuspectSettings, UnlearnSettings
from ubt.engine.spec import (
    MANIFEST_FILE,
    STAGES,
    OfDefense,
    OfVictim,
    StageSpec,
    of_attack,
    of_implant,
    of_model,
    of_nothing,
    of_pretrain,
)
from ubt.trials.config import TrialConfig
from ubt.trials.poison import GivenPoison


def _clean_files(trial: TrialConfig) -> dict[str, Path]:
    model = trial.victim.model
    found = {"checkpoint": model.weights_file, "folder": model.folder}
    return {name: path for name, path in found.items() if path}


def _poisoned_checkpoint(trial: TrialConfig) -> dict[str, Path]:
    checkpoint = trial.victim.implant.checkpoint
    return {"checkpoint": checkpoint} if checkpoint else {}


def _poison_files(trial: TrialConfig) -> dict[str, Path]:
    attack, poison = trial.victim.attack, trial.victim.poisoning
    manifest = poison.manifest if isinstance(poison, GivenPoison) else None
    return {**(attack.files() if attack else {}), **({MANIFEST_FILE: manifest} if manifest else {})}


# The victim

STAGES.add(
    StageSpec(
        "pretrain",
        1,
        needs=(),
        provides=("clean",),
        settings=OfVictim(of_pretrain),
        run="ubt.stages.victim:pretrain",
        sees_poison=True,
        work="ubt.stages.work:pretrain",
    ),
    StageSpec(
        "load",
        1,
        needs=(),
        provides=("clean",),
        settings=OfVictim(of_model),
        run="ubt.stages.victim:load",
        needs_data=False,
        seeded=False,
        sees_poison=True,
        files=_clean_files,
        work="ubt.stages.work:load",
    ),
    StageSpec(
        "evaluate_clean",
        1,
        needs=("clean",),
        provides=("clean_rates",),
        settings=OfVictim(of_nothing),
        run="ubt.stages.evaluation:evaluate_clean",
        seeded=False,
        sees_poison=True,
        gates=("ubt.engine.gates:clean_accuracy",),
        work="ubt.stages.work:evaluate_clean",
    ),
    StageSpec(
        "poison",
        1,
        needs=("clean",),
        provides=("manifest", "pairs"),
        settings=OfVictim(of_attack),
        run="ubt.stages.poison:run",
        sees_poison=True,
        files=_poison_files,
        work="ubt.stages.work:poison",
    ),
    StageSpec(
        "implant",
        2,
        needs=("clean", "manifest", "pairs"),
        provides=("poisoned", "model"),
        settings=OfVictim(of_implant),
        run="ubt.stages.victim:implant",
        sees_poison=True,
        gates=(
            "ubt.engine.gates:implant",
            "ubt.engine.gates:implant_accuracy",
            "ubt.engine.gates:clean_accuracy",
        ),
        files=_poisoned_checkpoint,
        work="ubt.stages.work:implant",
    ),
    StageSpec(
        "retrain",
        1,
        needs=("clean", "manifest", "pairs"),
        provides=("model",),
        settings=OfVictim(of_implant),
        run="ubt.stages.victim:retrain",
        diagnose="ubt.stages.victim:diagnose_retrain",
        sees_poison=True,
        work="ubt.stages.work:retrain",
    ),
)

# UBT, behind its detector

STAGES.add(
    StageSpec(
        "suspect",
        2,
        needs=("trust",),
        provides=("suspects",),
        settings=OfDefense(SuspectSettings),
        run="ubt.stages.suspect:suspect",
        diagnose="ubt.stages.suspect:diagnose_suspect",
        seeded=False,
        work="ubt.stages.work:little",
    ),
    StageSpec(
        "overfit",
        2,
        needs=("poisoned", "pairs", "suspects"),
        provides=("overfitted",),
        settings=OfDefense(OverfitSettings),
        run="ubt.stages.overfit:run",
        diagnose="ubt.stages.overfit:diagnose",
        gates=("ubt.engine.gates:overfit_auroc",),
        epochs="overfit_epochs",
        work="ubt.stages.work:overfit",
    ),
    StageSpec(
        "select",
        2,
        needs=("suspects", "overfitted"),
        provides=("selection",),
        settings=OfDefense(SelectSettings),
        run="ubt.stages.suspect:select",
        diagnose="ubt.stages.suspect:diagnose_select",
        work="ubt.stages.work:little",
    ),
    StageSpec(
        "attribute",
        2,
        needs=("overfitted", "pairs", "selection"),
        provides=("relevance",),
        settings=OfDefense(AttributeSettings),
        run="ubt.stages.attribute:run",
        diagnose="ubt.stages.attribute:diagnose",
        work="ubt.stages.work:attribute",
    ),
    StageSpec(
        "unlearn",
        4,
        needs=("poisoned", "pairs", "trust", "suspects", "selection", "relevance"),
        provides=("model",),
        settings=OfDefense(UnlearnSettings),
        run="ubt.stages.unlearn:run",
        diagnose="ubt.stages.unlearn:diagnose",
        observe="ubt.stages.observation:of_unlearning",
        epochs="unlearn_epochs",
        evaluates_each_epoch=True,
        work="ubt.stages.work:unlearn",
    ),
)

# Baselines

for _name, _settings in (("finetune", FinetuneSettings), ("cleanclip", CleanclipSettings), ("par", ParSettings)):
    STAGES.register(
        StageSpec(
            _name,
            1,
            needs=("poisoned",),
            provides=("model",),
            settings=OfDefense(_settings),
            run=f"ubt.stages.clean_tuning:{_name}",
            diagnose="ubt.stages.clean_tuning:diagnose",
            epochs=f"{_name}_epochs",
            evaluates_each_epoch=True,
            work=f"ubt.stages.work:{_name}",
        )
    )
STAGES.add(
    StageSpec(
        "rank",
        1,
        needs=("clean", "poisoned", "pairs"),
        provides=("ranking",),
        settings=OfDefense(RankSettings),
        run="ubt.stages.abl:rank",
        diagnose="ubt.stages.abl:diagnose_rank",
        epochs="isolate_epochs",
        work="ubt.stages.work:rank",
    ),
    StageSpec(
        "isolate",
        1,
        needs=("ranking",),
        provides=("isolated",),
        settings=OfDefense(IsolateSettings),
        run="ubt.stages.abl:isolate",
        diagnose="ubt.stages.abl:diagnose_isolate",
        seeded=False,
        work="ubt.stages.work:little",
    ),
    StageSpec(
        "ascend",
        2,
        needs=("poisoned", "pairs", "isolated"),
        provides=("model",),
        settings=OfDefense(AscendSettings),
        run="ubt.stages.abl:ascend",
        diagnose="ubt.stages.abl:diagnose_ascend",
        observe="ubt.stages.observation:of_ascent",
        epochs="ascend_epochs",
        evaluates_each_epoch=True,
        work="ubt.stages.work:ascend",
    ),
)

# What takes no training

STAGES.add(
    StageSpec(
        "reference",
        1,
        needs=("clean",),
        provides=("model",),
        settings=OfVictim(of_nothing),
        run="ubt.stages.reference:reference",
        diagnose="ubt.stages.reference:diagnose",
        needs_data=False,
        seeded=False,
        work="ubt.stages.work:another_model",
    ),
    StageSpec(
        "interpolate",
        1,
        needs=("clean", "poisoned"),
        provides=("model",),
        settings=OfDefense(InterpolateSettings),
        run="ubt.stages.reference:interpolate",
        diagnose="ubt.stages.reference:diagnose",
        needs_data=False,
        seeded=False,
        work="ubt.stages.work:another_model",
    ),
)

# What the model is worth

STAGES.register(
    StageSpec(
        "evaluate",
        2,
        needs=("model", "manifest"),
        provides=("rates",),
        settings=OfVictim(of_nothing),
        run="ubt.stages.evaluation:evaluate",
        seeded=False,
        sees_poison=True,
        work="ubt.stages.work:evaluate",
    )
)
