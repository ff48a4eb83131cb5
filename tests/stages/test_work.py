"""What is counted of stages beforehand is what they do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ubt.artifacts.store import ArtifactStore
from ubt.common.progress import PULSE
from ubt.engine.graph import build_pipeline
from ubt.engine.spec import STAGES, stage_named, stage_names
from ubt.engine.work import KINDS, Work, steps, used, work, work_of
from ubt.models.clip import Clip
from ubt.testing import run_tiny_trial, tiny_trial
from ubt.trials.record import State

METRICS = ["retrieval", "rebound", "linear_probe", "pac_bayes", "asr_all_images"]
COUNTED = ("images", "captions", "trained_images", "trained_captions")

Counts = defaultdict[str, Counter[str]]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Count by stage what goes through models, and whether gradients come back."""
    counts: Counts = defaultdict(Counter)
    images, captions = Clip.encode_images, Clip.encode_tokens

    def counted(kind: str, embedded: Tensor) -> Tensor:
        counts[PULSE.stage][f"trained_{kind}" if embedded.requires_grad else kind] += len(embedded)
        return embedded

    monkeypatch.setattr(Clip, "encode_images", lambda self, given: counted("images", images(self, given)))
    monkeypatch.setattr(Clip, "encode_tokens", lambda self, given: counted("captions", captions(self, given)))
    yield counts


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"defense.unlearn_towers": "both", "defense.overfit_data": "all", "defense.selection": "clean"},
        {"defense.unlearn_towers": "both", "defense.retain_loss": "contrastive"},
        {"defense.retain_loss": "contrastive", "defense.detector": "gain", "defense.attribution": "random"},
        {"defense.retain_weight": 0, "defense.detector": "knn", "defense.unlearn_epochs": 1},
        {"defense": {"kind": "finetune", "finetune_epochs": 2, "clean_pairs": 90}},
        {"defense": {"kind": "cleanclip", "cleanclip_epochs": 1, "clean_pairs": 90}},
        {"defense": {"kind": "par", "par_epochs": 1, "clean_pairs": 90}},
        {"defense": {"kind": "abl", "ascend_epochs": 2, "isolation_ratio": 0.2}},
        {"defense": {"kind": "none"}},
        {"defense": {"kind": "oracle"}},
        {"defense": {"kind": "none"}, "metrics": METRICS},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_embedded_and_trained_on_is_what_was_counted(changes: dict[str, Any], store: Path, done: Counts) -> None:
    record = run_tiny_trial(store, changes)
    assert record.state is State.DONE, record.reason
    trial = tiny_trial(changes)
    for stage, node in zip(record.stages, build_pipeline(trial, 0), strict=True):
        manifest = ArtifactStore(store).manifest(stage.stage, stage.key)
        assert manifest is not None
        counted = Work.of(manifest.work)
        assert manifest.setup is not None
        assert manifest.setup.model == "tiny-rn"
        before = work_of(node, trial, SIZES)
        assert before is not None
        assert before.as_json() == manifest.work, "counted before it ran and as it ran"
        if stage.reused:
            continue
        for kind in COUNTED:
            expected, found = counted.counts.get(kind, 0.0), done[stage.stage][kind]
            doubled = 2 if kind == "trained_captions" and stage.stage == "attribute" else 1
            # A process makes the classifiers of a text tower once: the first stage that finds none makes them.
            made = [found, found - PROMPTS] if kind == "captions" else [found]
            near = [pytest.approx(one, rel=0.06, abs=5) for one in made]
            assert expected / doubled in near, (stage.stage, kind, expected, found)


SIZES = tiny_trial().victim.data.sizes(Path("nowhere"))


PROMPTS = SIZES.classes * SIZES.templates


def test_every_stage_of_the_package_says_how_much_work_it_is() -> None:
    assert [name for name in stage_names() if stage_named(name).work is None] == []
    assert STAGES.names()


def test_what_was_counted_of_the_data_is_what_is_loaded(store: Path) -> None:
    trial = tiny_trial()
    assert trial.victim.data.load(32, store / "images").sizes == SIZES


def test_a_chain_is_counted_as_far_as_it_goes() -> None:
    trial = tiny_trial({"defense.overfit_epochs": 5})
    node = next(node for node in build_pipeline(trial, 0) if node.spec.name == "overfit")
    whole, part = work_of(node, trial, SIZES), work_of(node.at(2), trial, SIZES)
    assert whole is not None
    assert part is not None
    assert part.counts["trained_images"] / whole.counts["trained_images"] == pytest.approx(2 / 5)


def test_of_unknown_data_no_work_is_known() -> None:
    trial = tiny_trial()
    assert work_of(build_pipeline(trial, 0)[0], trial, None) is None


@pytest.mark.parametrize(
    ("count", "size", "pairs", "batches"), [(10, 4, 8, 2), (3, 4, 3, 1), (8, 4, 8, 2), (0, 4, 0, 0)]
)
def test_batches_are_counted_as_they_are_drawn(count: int, size: int, pairs: int, batches: int) -> None:
    from ubt.methods.training import batches as drawn

    assert (used(count, size), steps(count, size)) == (pairs, batches)
    found = drawn(count, size, 0)
    assert (sum(map(len, found)), len(found)) == (pairs, batches)


def test_work_adds_up_and_costs_what_its_kinds_cost() -> None:
    some = work(images=3, steps=1) + work(images=1) * 2
    assert some.counts == {"images": 5, "steps": 1}
    assert some.seconds({"images": 2, "steps": 10}) == 20
    assert some.seconds({"images": 2}) is None, "what a step takes is unknown"
    with pytest.raises(TypeError, match="no kinds of work: imges"):
        work(imges=1)
    assert set(KINDS) >= set(some.counts)
