"""Look at what a cleaning came to: the suspicious pairs, and the models that a defender could deploy. Loads torch."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from analysis.cleaned import Cleaned, ModelRow, SelectedPair, Suspect
from sweeps.study.config import StudyConfig
from ubt.artifacts.codec import Artifact
from ubt.artifacts.store import ArtifactStore, local_cache
from ubt.common.errors import Problem, UserError
from ubt.data import content_key
from ubt.data.base import Images
from ubt.defenses.ubt import UnlearnSettings
from ubt.engine.context import StageContext, context_of
from ubt.engine.graph import Node, build_pipeline
from ubt.engine.spec import PAIRS
from ubt.engine.workspace import Workspace
from ubt.models.clip import State, pick_device, use_threads
from ubt.stages.detectors import Trust
from ubt.stages.observation import of_unlearning
from ubt.stages.reference import between
from ubt.stages.unlearn import kept_tokens
from ubt.trials.config import TrialConfig
from ubt.trials.record import TrialRecord

SHOWN = 48
"""Selected pairs that the page shows."""
WEIGHTS = (0.25, 0.5, 0.75)
"""α of the rows between the suspicious model and the clean one."""


def look(study: StudyConfig, record: TrialRecord, store: str, has_reference: bool, labelled: bool) -> Cleaned:
    """Return what a trial of a cleaning came to, read from the store.

    Raises:
        UserError: if the store has lost something since.
    """
    trial = study.trial(record.changes)
    use_threads(study.resources.cpus_per_trial)
    device = pick_device(study.resources.gpus_per_trial)
    workspace = Workspace(trial.victim.data, trial.victim.model, device, ArtifactStore(store), local_cache(store))
    seen = _Seen.of(trial, record, workspace)
    return Cleaned(
        pairs=len(seen.context.pairs),
        labelled=labelled,
        has_reference=has_reference,
        models=tuple(_rows(seen, workspace, has_reference)),
        suspects=tuple(_suspects(seen, workspace)),
        selected=tuple(_selected(seen)),
        threshold=seen.settings.token_threshold,
    )


@dataclass(frozen=True)
class _Seen:
    """The stages of one trial."""

    artifacts: Mapping[str, Artifact]
    """By the stage's name."""
    context: StageContext
    """Of `unlearn`."""
    settings: UnlearnSettings

    @classmethod
    def of(cls, trial: TrialConfig, record: TrialRecord, workspace: Workspace) -> _Seen:
        nodes = build_pipeline(trial, record.seed, content_key(trial.victim.data))
        artifacts = {node.spec.name: _loaded(node, workspace) for node in nodes}
        by_key = {node.key: node.spec.name for node in nodes}
        unlearn = next(node for node in nodes if node.spec.name == "unlearn")
        inputs = {role: artifacts[by_key[key]] for role, key in unlearn.inputs.items()}
        context = context_of(unlearn, workspace, inputs, lent=False)
        return cls({**artifacts, PAIRS: inputs[PAIRS]}, context, context.settings(UnlearnSettings))


def _loaded(node: Node, workspace: Workspace) -> Artifact:
    artifact = workspace.load(node.spec.name, node.key)
    if artifact is None:
        message = f"stage `{node.spec.name}` ({node.key}) has disappeared from the store {workspace.store.root}"
        raise UserError(Problem("ubt clean", message, advice="run the same command into another folder"))
    return artifact


def _rows(seen: _Seen, workspace: Workspace, has_reference: bool) -> Iterator[ModelRow]:
    """Yield every model that could be deployed, the suspicious one first and the cleaned one behind it."""
    poisoned = seen.artifacts["implant"].weights
    models: dict[str, State] = {"as it came": poisoned, "cleaned": seen.artifacts["unlearn"].weights}
    if has_reference:
        clean = seen.artifacts["load"].weights
        models["the clean model in its place"] = clean
        models |= {f"weights between both, {weight:.0%} clean": between(poisoned, clean, weight) for weight in WEIGHTS}
    observe, evaluator = of_unlearning(seen.context), workspace.evaluator(seen.artifacts[PAIRS])
    for name, weights in models.items():
        clip = workspace.clip.with_state(weights)
        found, rates = observe.see(clip), evaluator.rates(clip, "test")
        yield ModelRow(
            name=name,
            ca=rates.ca,
            ca_low=rates.ca_low,
            ca_high=rates.ca_high,
            images=rates.ca_images,
            held_similarity=found["held_similarity"],
            alike=found["alike"],
        )


def _suspects(seen: _Seen, workspace: Workspace) -> Iterator[Suspect]:
    """Yield every pair that the detector looked at, the least trusted first."""
    trust = Trust.of(seen.context.artifact("trust"))
    suspects = seen.artifacts["suspect"].tensors["indices"].tolist()
    overfit = seen.artifacts["overfit"].tensors
    before = dict(zip(suspects, overfit["similarities_before"].tolist(), strict=True))
    after = dict(zip(suspects, overfit["similarities"].tolist(), strict=True))
    telling = _telling(seen)
    files, captions = workspace.data.train.files, seen.context.pairs.captions
    for rank, position in enumerate(trust.ranked().tolist(), start=1):
        row = int(trust.pairs[position])
        yield Suspect(
            rank=rank,
            row=row,
            image=files[row] if files else "",
            caption=captions[row],
            trust=float(trust.values[position]),
            suspected=row in before,
            similarity=before.get(row),
            overfitted=after.get(row),
            selected=row in telling,
            telling=" ".join(telling.get(row, ())),
        )


def _telling(seen: _Seen) -> dict[int, list[str]]:
    """Return the words that are unlearnt of each selected pair, by its row in D."""
    kept = kept_tokens(seen.context, seen.settings)
    indices = seen.context.artifact("selection").tensors["indices"]
    tokens = seen.context.pair_tokens[indices]
    text = seen.context.token_text
    return {
        row: [text(int(token)).strip() for token in own[which]]
        for row, own, which in zip(indices.tolist(), tokens, kept, strict=True)
    }


def _selected(seen: _Seen) -> Iterator[SelectedPair]:
    indices = seen.context.artifact("selection").tensors["indices"][:SHOWN]
    relevance = seen.context.artifact("relevance").tensors
    images = seen.context.pairs.take(indices.numpy())
    text = seen.context.token_text
    for at, row in enumerate(indices.tolist()):
        words, shares = relevance["words"][at], relevance["relevance"][at]
        tokens: torch.Tensor = seen.context.pair_tokens[row][words]
        shaded = tuple((text(int(token)), float(share)) for token, share in zip(tokens, shares[words], strict=True))
        yield SelectedPair(row, _png(images[at]), shaded)


def _png(image: Images) -> str:
    """Return an image `[H, W, 3]` uint8 as a data URL, at most 128 pixels wide."""
    picture, out = Image.fromarray(np.ascontiguousarray(image)), io.BytesIO()
    picture.thumbnail((128, 128))
    picture.save(out, format="PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
