"""The table of stages: one row each. A new stage is one file and one row here. Loads no torch.

A row says what a stage needs and provides by *role*, and which settings it depends on. Several stages may
provide one role (`clean`: trained here or loaded); the last one before a stage fills it, which is why
defenses are plain tuples of names and the pipeline has no branches.
"""

from __future__ import annotations

from ubt.defenses.abl import AscendSettings, IsolateSettings, RankSettings
from ubt.defenses.cleanclip import CleanclipSettings
from ubt.defenses.finetune import FinetuneSettings
from ubt.defenses.par import ParSettings
from ubt.defenses.ubt import (
    AttributeSettings,
    DetectSettings,
    OverfitSettings,
    ScreenSettings,
    SelectSettings,
    SuspectSettings,
    UnlearnSettings,
)
from ubt.measures import LinearProbe, PacBayes, Rebound, Retrieval
from ubt.stages.depends import OfDefense, OfMeasure, of_attack, of_implant, of_model, of_nothing, of_pretrain
from ubt.stages.spec import StageSpec
from ubt.trial import TrialConfig

STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec("pretrain", 1, (), ("clean",), of_pretrain),
        StageSpec("load", 1, (), ("clean",), of_model, needs_data=False, seeded=False),
        StageSpec("poison", 1, ("clean",), ("poison",), of_attack, sees_poison=True),
        StageSpec("implant", 2, ("clean", "poison"), ("poisoned", "model"), of_implant, sees_poison=True),
        StageSpec("score", 6, ("clean", "poison"), ("trust",), OfDefense(ScreenSettings), seeded=False),
        StageSpec("gain", 5, ("clean", "poisoned", "poison"), ("trust",), OfDefense(ScreenSettings), seeded=False),
        StageSpec("rescore", 5, ("poisoned", "poison"), ("trust",), OfDefense(ScreenSettings), seeded=False),
        StageSpec("density", 4, ("poisoned", "poison"), ("trust",), OfDefense(DetectSettings), seeded=False),
        StageSpec("suspect", 2, ("trust",), ("suspects",), OfDefense(SuspectSettings), seeded=False),
        StageSpec(
            "overfit",
            2,
            ("poisoned", "poison", "suspects"),
            ("overfitted",),
            OfDefense(OverfitSettings),
            epochs="overfit_epochs",
        ),
        StageSpec("select", 2, ("suspects", "overfitted"), ("selection",), OfDefense(SelectSettings)),
        StageSpec(
            "attribute",
            2,
            ("overfitted", "poison", "selection"),
            ("relevance",),
            OfDefense(AttributeSettings),
        ),
        StageSpec(
            "unlearn",
            3,
            ("poisoned", "poison", "trust", "suspects", "selection", "relevance"),
            ("model",),
            OfDefense(UnlearnSettings),
            epochs="unlearn_epochs",
            measures_each_epoch=True,
        ),
        StageSpec(
            "finetune",
            1,
            ("poisoned",),
            ("model",),
            OfDefense(FinetuneSettings),
            epochs="finetune_epochs",
            measures_each_epoch=True,
        ),
        StageSpec(
            "cleanclip",
            1,
            ("poisoned",),
            ("model",),
            OfDefense(CleanclipSettings),
            epochs="cleanclip_epochs",
            measures_each_epoch=True,
        ),
        StageSpec(
            "rank",
            1,
            ("clean", "poisoned", "poison"),
            ("ranking",),
            OfDefense(RankSettings),
            epochs="isolate_epochs",
        ),
        StageSpec("isolate", 1, ("ranking",), ("isolated",), OfDefense(IsolateSettings), seeded=False),
        StageSpec(
            "ascend",
            1,
            ("poisoned", "poison", "isolated"),
            ("model",),
            OfDefense(AscendSettings),
            epochs="ascend_epochs",
            measures_each_epoch=True,
        ),
        StageSpec(
            "par",
            1,
            ("poisoned",),
            ("model",),
            OfDefense(ParSettings),
            epochs="par_epochs",
            measures_each_epoch=True,
        ),
        StageSpec("retrain", 1, ("clean", "poison"), ("model",), of_implant, sees_poison=True),
        StageSpec("evaluate", 2, ("model", "poison"), ("rates",), of_nothing, seeded=False, sees_poison=True),
        StageSpec("retrieval", 1, ("model", "poison"), ("retrieval",), OfMeasure(Retrieval), sees_poison=True),
        StageSpec(
            "linear_probe",
            1,
            ("model", "poison"),
            ("linear_probe",),
            OfMeasure(LinearProbe),
            seeded=False,
            sees_poison=True,
        ),
        StageSpec("rebound", 1, ("model", "poison"), ("rebound",), OfMeasure(Rebound), sees_poison=True),
        StageSpec("pac_bayes", 1, ("model", "poisoned", "rates"), ("pac_bayes",), OfMeasure(PacBayes), seeded=False),
    )
}


def stages_of(trial: TrialConfig) -> tuple[StageSpec, ...]:
    """Return the rows that a trial runs, in order."""
    clean = "pretrain" if trial.victim.model.trained_here else "load"
    measures = (measure.kind for measure in trial.measures)
    names = (clean, "poison", "implant", *trial.defense.stages, "evaluate", *measures)
    return tuple(STAGES[name] for name in names)
