"""The stages that come with the package: one row each. A new stage is a function and one row here. Loads no torch.

A row says what a stage needs and provides by *role*, and which settings it depends on. Several stages may
provide one role (`clean`: trained here or loaded); the last one before a stage fills it, which is why
defenses are plain tuples of names and the pipeline has no branches.
"""

from __future__ import annotations

from ubt.defenses.abl import AscendSettings, IsolateSettings, RankSettings
from ubt.defenses.clean_tuning import CleanclipSettings, FinetuneSettings, ParSettings
from ubt.defenses.ubt import AttributeSettings, OverfitSettings, SelectSettings, SuspectSettings, UnlearnSettings
from ubt.detectors import DETECTORS
from ubt.engine.spec import OfDefense, OfMetric, StageSpec, of_attack, of_implant, of_model, of_nothing, of_pretrain
from ubt.trials.config import TrialConfig
from ubt.trials.metrics import LinearProbe, PacBayes, Rebound, Retrieval

_VICTIM = (
    StageSpec("pretrain", 1, (), ("clean",), of_pretrain, run="ubt.stages.victim:pretrain"),
    StageSpec("load", 1, (), ("clean",), of_model, run="ubt.stages.victim:load", needs_data=False, seeded=False),
    StageSpec("poison", 1, ("clean",), ("poison",), of_attack, run="ubt.stages.poison:run", sees_poison=True),
    StageSpec(
        "implant",
        2,
        ("clean", "poison"),
        ("poisoned", "model"),
        of_implant,
        run="ubt.stages.victim:implant",
        sees_poison=True,
    ),
)
_UBT = (
    StageSpec(
        "suspect",
        2,
        ("trust",),
        ("suspects",),
        OfDefense(SuspectSettings),
        run="ubt.stages.suspect:suspect",
        diagnose="ubt.stages.suspect:diagnose_suspect",
        seeded=False,
    ),
    StageSpec(
        "overfit",
        2,
        ("poisoned", "poison", "suspects"),
        ("overfitted",),
        OfDefense(OverfitSettings),
        run="ubt.stages.overfit:run",
        diagnose="ubt.stages.overfit:diagnose",
        epochs="overfit_epochs",
    ),
    StageSpec(
        "select",
        2,
        ("suspects", "overfitted"),
        ("selection",),
        OfDefense(SelectSettings),
        run="ubt.stages.suspect:select",
        diagnose="ubt.stages.suspect:diagnose_select",
    ),
    StageSpec(
        "attribute",
        2,
        ("overfitted", "poison", "selection"),
        ("relevance",),
        OfDefense(AttributeSettings),
        run="ubt.stages.attribute:run",
        diagnose="ubt.stages.attribute:diagnose",
    ),
    StageSpec(
        "unlearn",
        3,
        ("poisoned", "poison", "trust", "suspects", "selection", "relevance"),
        ("model",),
        OfDefense(UnlearnSettings),
        run="ubt.stages.unlearn:run",
        diagnose="ubt.stages.unlearn:diagnose",
        epochs="unlearn_epochs",
        evaluates_each_epoch=True,
    ),
)
_CLEAN_TUNING = tuple(
    StageSpec(
        name,
        1,
        ("poisoned",),
        ("model",),
        OfDefense(settings),
        run=f"ubt.stages.clean_tuning:{name}",
        diagnose="ubt.stages.clean_tuning:diagnose",
        epochs=f"{name}_epochs",
        evaluates_each_epoch=True,
    )
    for name, settings in (("finetune", FinetuneSettings), ("cleanclip", CleanclipSettings), ("par", ParSettings))
)
_ABL = (
    StageSpec(
        "rank",
        1,
        ("clean", "poisoned", "poison"),
        ("ranking",),
        OfDefense(RankSettings),
        run="ubt.stages.abl:rank",
        diagnose="ubt.stages.abl:diagnose_rank",
        epochs="isolate_epochs",
    ),
    StageSpec(
        "isolate",
        1,
        ("ranking",),
        ("isolated",),
        OfDefense(IsolateSettings),
        run="ubt.stages.abl:isolate",
        diagnose="ubt.stages.abl:diagnose_isolate",
        seeded=False,
    ),
    StageSpec(
        "ascend",
        1,
        ("poisoned", "poison", "isolated"),
        ("model",),
        OfDefense(AscendSettings),
        run="ubt.stages.abl:ascend",
        diagnose="ubt.stages.abl:diagnose_ascend",
        epochs="ascend_epochs",
        evaluates_each_epoch=True,
    ),
)
_ORACLE = (
    StageSpec(
        "retrain",
        1,
        ("clean", "poison"),
        ("model",),
        of_implant,
        run="ubt.stages.victim:retrain",
        diagnose="ubt.stages.victim:diagnose_retrain",
        sees_poison=True,
    ),
)
_EVALUATION = (
    StageSpec(
        "evaluate",
        2,
        ("model", "poison"),
        ("rates",),
        of_nothing,
        run="ubt.stages.evaluate:run",
        seeded=False,
        sees_poison=True,
    ),
    *(
        StageSpec(
            name,
            1,
            needs,
            (name,),
            OfMetric(settings),
            run=f"ubt.stages.{name}:run",
            diagnose=f"ubt.stages.{name}:diagnose",
            seeded=seeded,
            sees_poison=name != "pac_bayes",
        )
        for name, settings, needs, seeded in (
            ("retrieval", Retrieval, ("model", "poison"), True),
            ("linear_probe", LinearProbe, ("model", "poison"), False),
            ("rebound", Rebound, ("model", "poison"), True),
            ("pac_bayes", PacBayes, ("model", "poisoned", "rates"), False),
        )
    ),
)

STAGES: dict[str, StageSpec] = {
    spec.name: spec for spec in (*_VICTIM, *DETECTORS, *_UBT, *_CLEAN_TUNING, *_ABL, *_ORACLE, *_EVALUATION)
}


def stages_of(trial: TrialConfig) -> tuple[StageSpec, ...]:
    """Return the rows that a trial runs, in order."""
    clean = "pretrain" if trial.victim.model.trained_here else "load"
    metrics = (metric.kind for metric in trial.metrics)
    names = (clean, "poison", "implant", *trial.defense.stages, "evaluate", *metrics)
    return tuple(STAGES[name] for name in names)
