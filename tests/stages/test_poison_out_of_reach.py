"""A defense's stage cannot reach what is poisoned: an adversary walks everything that it is handed.

The walk follows attributes, properties, items, closures, bound objects, locals of generators, and files. It does not
scan the process's memory: modules, `__globals__`, stacks of other threads and the collector's lists are left out.
"""

from __future__ import annotations

import functools
import signal
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from tiny_victim import run_trial, tiny_trial

from sweeps.planning.plan import plan_study
from sweeps.study.config import StudyConfig
from ubt.artifacts.leases import Leases
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.attacks import Attack
from ubt.common.errors import DamagedArtifact, Problem, StageFault, UserError
from ubt.data.base import DataSet
from ubt.defenses import DEFENSES, Defense
from ubt.defenses.detectors import DETECTORS
from ubt.engine.context import Epoch, Output
from ubt.engine.execution import Execution
from ubt.engine.graph import Node, build_pipeline
from ubt.engine.poisoning import Feed, PoisonedPairs, PoisonManifest, poisoned_pairs
from ubt.engine.spec import stage_named
from ubt.engine.workspace import Workspace
from ubt.methods.evaluation import Evaluator
from ubt.testing import TINY
from ubt.trials.config import TrialConfig, VictimConfig

SECRETS = (
    *(PoisonManifest, PoisonedPairs, Attack, Evaluator, DataSet, VictimConfig, TrialConfig),
    *(Workspace, ArtifactStore, ArtifactManifest, Node, np.memmap),
)
"""What leads to the list of what is poisoned, to the trigger, to the clean originals or to the victim's settings."""
LEAVES = (bool, int, float, complex, bytes, torch.dtype, torch.device, type, types.ModuleType, torch.Tensor)
SKIPPED = {"gi_frame", "gi_code", "gi_yieldfrom"}
MOST = 200_000

VARIANTS = [{"kind": defense().kind} for defense in DEFENSES if not defense().knows_poison]
VARIANTS += [{"kind": "ubt", "detector": detector().kind} for detector in DETECTORS]
STAGES = {name: variant for variant in VARIANTS for name in tiny_trial({"defense": variant}).defense.stages}
"""Every stage of a defense, with a defense that runs it."""


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object leads to, each with how."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{at}]", part) for at, part in enumerate(list(value)[:1000]))
    if isinstance(value, functools.partial):
        yield from ((".partial", part) for part in (value.func, value.args, value.keywords))
    if isinstance(value, types.GeneratorType) and value.gi_frame is not None:
        yield ".gi_frame", value.gi_frame.f_locals
    if isinstance(value, types.FunctionType):
        yield from ((".closure", cell.cell_contents) for cell in value.__closure__ or ())
        yield ".defaults", (value.__defaults__, value.__kwdefaults__)
        return
    if isinstance(value, np.ndarray):
        yield ".base", value.base
        return
    for name in dir(value):
        inner = name.startswith("__") and name not in {"__self__", "__func__", "__wrapped__", "__dict__"}
        if inner or name in SKIPPED:
            continue
        try:
            yield f".{name}", getattr(value, name)
        except Exception:  # noqa: BLE001 — a property may raise anything
            continue


def leaks(root: Any, places: Path, indices: np.ndarray) -> list[str]:
    """Return the ways from `root` to a secret, to a file below `places`, or to an array of just these `indices`."""
    found, seen, queue = [], {id(root)}, [("context", root)]
    kept = []  # so that no number of an object is given out twice
    while queue and len(seen) < MOST:
        way, value = queue.pop()
        kept.append(value)
        if isinstance(value, SECRETS):
            found.append(f"{way} is {type(value).__name__}")
            continue
        if isinstance(value, str | Path):
            if str(places) in str(value):
                found.append(f"{way} is a path")
            continue
        if isinstance(value, np.ndarray | torch.Tensor):
            flat = np.asarray(value.detach() if isinstance(value, torch.Tensor) else value).ravel()
            if flat.dtype == indices.dtype and np.array_equal(np.sort(flat), indices):
                found.append(f"{way} lists what is poisoned")
        if isinstance(value, LEAVES):
            continue
        for step, part in parts(value):
            if part is not None and id(part) not in seen and not isinstance(part, int | float | bool):
                seen.add(id(part))
                queue.append((way + step, part))
    assert len(seen) < MOST, "the walk was cut short"
    return found


@pytest.fixture
def manifest(bench):
    return PoisonManifest.of(bench.workspace.load("poison", bench.nodes()["poison"].key))


def walked(bench, root, manifest):
    return leaks(root, Path(bench.workspace.store.root), manifest.indices)


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_that_a_stage_of_a_defense_is_handed_leads_to_the_poison(bench, manifest, stage):
    defense = STAGES[stage]
    changes = {"defense": {**TINY["defense"], **defense} if defense["kind"] == "ubt" else defense}
    context = bench.context(stage, changes)
    if "pairs" in stage_named(stage).needs:
        assert context.pairs.take(np.arange(4)).shape == (4, 32, 32, 3), "what was asked for leaves nothing behind"
    if context.earlier is None and stage in {"finetune", "cleanclip", "par"}:
        context.clean_pairs(4)
    assert walked(bench, context, manifest) == []


def test_the_adversary_finds_the_manifest_in_what_version_0_1_handed_out(bench, manifest):
    pairs = poisoned_pairs(bench.workspace.data.train, manifest)
    former = SimpleNamespace(
        workspace=bench.workspace, pairs=pairs, data=bench.workspace.data, node=bench.nodes()["suspect"]
    )
    found = walked(bench, former, manifest)
    for secret in ("PoisonedPairs", "DataSet", "Workspace", "Node"):
        assert any(way.endswith(secret) for way in found), secret


def test_the_adversary_finds_secrets_in_closures_partials_generators_methods_and_files(bench, manifest):
    def generator():
        secret = manifest
        yield secret.known

    running = generator()
    next(running)
    hidden = {
        "closure": lambda: manifest,
        "partial": functools.partial(len, manifest),
        "generator": running,
        "method": manifest.marks,
        "item": [{"deep": (manifest,)}],
        "indices": torch.from_numpy(manifest.indices.copy()),
        "file": SimpleNamespace(name=str(Path(bench.workspace.store.root) / "artifacts")),
        "images": np.asarray(bench.workspace.data.train.images)[:2],
    }
    for name, value in hidden.items():
        assert walked(bench, SimpleNamespace(value=value), manifest), name


def compared_with_the_originals(pairs):
    """The stage that found the manifest in version 0.1: where does what is handed out differ from what is held?"""
    everything = np.arange(len(pairs))
    return np.flatnonzero((np.asarray(pairs.images) != pairs.take(everything)).any(axis=(1, 2, 3)))


def test_comparing_images_with_their_originals_gave_the_manifest_away_and_there_are_no_originals_now(bench, manifest):
    clean = bench.workspace.data.train
    former = SimpleNamespace(images=clean.images, take=poisoned_pairs(clean, manifest).take)
    former = type("Former", (SimpleNamespace,), {"__len__": lambda _: len(clean)})(**vars(former))
    assert np.array_equal(compared_with_the_originals(former), manifest.indices)
    with pytest.raises(AttributeError):
        compared_with_the_originals(bench.context("overfit").pairs)


def test_an_error_behind_a_feed_leads_nowhere(bench, manifest):
    pairs = bench.context("overfit").pairs
    with pytest.raises(IndexError) as caught:
        pairs.take(np.array([10**6]))
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "_serve" not in frames
    assert pairs.take(np.array([0])).shape == (1, 32, 32, 3), "and it goes on"


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Return what a function returns or raises, in a thread of its own, so that a hang fails the test."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function())
        except Exception as error:  # noqa: BLE001 — whichever it is, the test looks at it
            found.append(error)

    waiting = threading.Thread(target=run, daemon=True)
    waiting.start()
    waiting.join(seconds)
    assert found, "it hangs"
    return found[0]


# Batches


@pytest.mark.parametrize(
    "asked",
    [slice(0, 1), None, 3, np.int64(3), np.array(3), np.array([[0, 1]]), np.array([0.5]), np.array([True, False]), "0"],
    ids=repr,
)
def test_pairs_are_taken_at_integers_only(bench, asked):
    context = bench.context("detect_clean")
    for feed in (context.pairs, context.clean_pairs(2)[0].whole):
        assert isinstance(within(5, lambda feed=feed: feed.take(asked)), TypeError)
        assert feed.take(np.array([0])).shape == (1, 32, 32, 3), "and it goes on"


@pytest.mark.parametrize("asked", [[1, 0], (1, 0), range(1, -1, -1), np.array([1, 0], np.uint8), torch.tensor([1, 0])])
def test_whatever_lists_integers_will_do(bench, asked):
    pairs = bench.context("detect_clean").pairs
    np.testing.assert_array_equal(pairs.take(asked), pairs.take(np.array([1, 0])))
    assert pairs.take([]).shape == (0, 32, 32, 3)


def test_a_batch_is_a_plain_array_of_its_own_whatever_the_source_hands_out(tmp_path):
    np.save(tmp_path / "images-train-1.npy", np.zeros((4, 2, 2, 3), dtype=np.uint8))
    mapped = np.load(tmp_path / "images-train-1.npy", mmap_mode="r")
    source = SimpleNamespace(captions=["a"] * 4, take=lambda indices: mapped[int(indices[0]) :])
    batch = Feed(source).take(np.array([1]))
    assert type(batch) is np.ndarray
    assert batch.base is None
    assert batch.flags.writeable
    assert not np.shares_memory(batch, mapped)


def test_what_is_asked_with_is_not_evaluated_where_the_pairs_are():
    evaluated = []

    class Listening:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            evaluated.append(threading.get_ident())
            return np.array([0])

    served = []
    images = np.zeros((1, 2, 2, 3), dtype=np.uint8)

    def take(indices):
        served.append(threading.get_ident())
        return images[np.asarray(indices)]

    Feed(SimpleNamespace(captions=["a"], take=take)).take(Listening())
    assert set(evaluated) == {threading.get_ident()}
    assert served != [threading.get_ident()]


@pytest.mark.parametrize("junk", [b"", b"junk", np.arange(3), (1, np.arange(1))], ids=repr)
def test_junk_in_the_queue_of_requests_shows_nobody_the_frames_of_the_thread(bench, monkeypatch, junk):
    shown = []
    monkeypatch.setattr("sys.unraisablehook", shown.append)
    monkeypatch.setattr("threading.excepthook", shown.append)
    feed = Feed(bench.workspace.data.train)
    feed._requests.put(junk)
    threading.Event().wait(0.1)
    assert shown == []


def test_no_thread_leads_to_the_pairs(bench, manifest):
    pairs = bench.context("detect_clean").pairs
    pairs.take(np.array([0]))
    assert walked(bench, SimpleNamespace(threads=threading.enumerate()), manifest) == []


def test_the_heartbeat_of_a_worker_s_leases_does_not_lead_to_the_store(bench, manifest, monkeypatch):
    beaten = threading.Event()
    monkeypatch.setattr("ubt.artifacts.leases.BEAT_SECONDS", 0.01)
    monkeypatch.setattr(Leases, "_beat", lambda *_: beaten.set())
    with closing(Leases(bench.workspace.store.lease_files())) as leases:
        leases.release(leases.take("implant/key", "study/t0000"), published=False)
        assert beaten.wait(10), "its thread is there"
        assert walked(bench, SimpleNamespace(threads=threading.enumerate()), manifest) == []


def test_nothing_can_be_put_in_the_place_of_a_feeds_methods(bench):
    with pytest.raises(AttributeError):
        bench.context("overfit").pairs.take = print


# Errors


class Failing:
    """Pairs whose taking raises an error that knows them, their file and another error."""

    captions = ("a",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.secret = PoisonedPairs(None, [], np.zeros(0, np.bool_), None)

    def take(self, _: object) -> None:
        try:
            Path("/nonexistent/original.png").read_bytes()
        except OSError as cause:
            raise self.error from cause


class OwnTrouble(OSError):
    """A kind of error that a data source brings, with more than words."""

    def __init__(self, pairs: object) -> None:
        super().__init__(5, "no luck", "/nonexistent/original.png")
        self.pairs = pairs


class Mute(Exception):
    def __str__(self) -> str:
        raise KeyError


UNREADABLE = UserError([Problem("a.csv, row 3", "cannot be read", "x.png", "mend it"), Problem("b.csv", "is empty")])
MISSING = FileNotFoundError(2, "No such file or directory", "/nonexistent/original.png")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ValueError("bad"), ValueError, "bad"),
        (StageFault("bad"), StageFault, "bad"),
        (DamagedArtifact("bad"), DamagedArtifact, "bad"),
        (MemoryError("full"), MemoryError, "full"),
        (UNREADABLE, UserError, str(UNREADABLE)),
        (MISSING, FileNotFoundError, "[Errno 2] No such file or directory: '/nonexistent/original.png'"),
        (OwnTrouble([1]), OSError, "OwnTrouble: [Errno 5] no luck: '/nonexistent/original.png'"),
        (KeyError("x"), RuntimeError, "KeyError: 'x'"),
        (SystemExit(3), RuntimeError, "SystemExit: 3"),
        (KeyboardInterrupt(), RuntimeError, "KeyboardInterrupt: "),
        (Mute(), RuntimeError, "Mute"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_keeps_its_words_and_leads_nowhere(bench, manifest, error, kind, words):
    feed = Feed(Failing(error))
    caught = within(5, lambda: feed.take(np.array([0])))
    assert (type(caught), str(caught)) == (kind, words)
    assert (caught.__cause__, caught.__context__) == (None, None)
    assert getattr(caught, "filename", None) is None
    assert vars(caught).keys() <= {"problems"}
    trace, frames = caught.__traceback__, []
    while trace is not None:
        frames.append(trace.tb_frame.f_locals)
        trace = trace.tb_next
    assert not any(isinstance(value, Failing) for frame in frames for value in frame.values())
    assert walked(bench, [caught, caught.args, [f for f in frames if "found" not in f]], manifest) == []
    assert type(within(5, lambda: feed.take(np.array([0])))) is kind, "and it goes on"


def test_the_batch_after_an_interrupted_one_is_the_one_that_was_asked_for(bench):
    train, held = bench.workspace.data.train, threading.Event()

    def take(indices):
        held.wait(5)
        return train.take(indices)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    feed = Feed(SimpleNamespace(captions=train.captions, take=take))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            feed.take(np.array([0]))
    finally:
        signal.signal(signal.SIGALRM, before)
        held.set()
    for index in (5, 7):
        np.testing.assert_array_equal(feed.take(np.array([index])), train.take(np.array([index])))


# What the engine computes beside a stage


def listening(seen: list[Any]) -> Callable[[Any], Iterator[Epoch]]:
    """Return a stage that listens at all that it is handed."""

    def hear(_: object, given: tuple[Any, ...]) -> None:
        seen.append(given[0])

    def stage(context: Any) -> Iterator[Epoch]:
        clip = context.clip("poisoned")
        for net in (clip.net, context._model.net):
            net.visual.register_forward_pre_hook(hear)
        tokenize = context.tokenize
        context.tokenize = lambda captions: seen.append(captions) or tokenize(captions)
        context.clip = lambda _: clip
        for number in (1, 2):
            yield Epoch(number, lambda: Output({"x": torch.ones(1)}, clip.state(), "poisoned"), model=clip)

    return stage


def looking(context: Any, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """A stage's diagnostics that compute with what is poisoned."""
    context.tokenize([manifest.attack.target])
    context.clip("poisoned").encode_images(context.pairs.take(manifest.indices))
    return {"x": float(output.tensors["x"])}


def executed(bench, **fields):
    """Return an execution of `overfit` with another row, under a seed that no other test uses."""
    node = bench.node("overfit")
    spec = replace(node.spec, **fields)
    return Execution(
        replace(node, spec=spec, seed=4321), bench.workspace, bench.inputs("overfit"), bench.artifact("poison")
    )


def test_a_hook_on_a_stages_model_sees_nothing_of_evaluation_or_diagnosis(bench):
    seen = []
    execution = executed(bench, run=listening(seen), diagnose=looking, evaluates_each_epoch=True)
    *_, record = execution.steps()
    expected = bench.workspace.evaluator(bench.artifact("poison")).rates(
        bench.clip(bench.artifact("implant").weights), "val"
    )
    assert [epoch.val for epoch in record.epochs] == [expected, expected]
    assert record.diagnostics == {"x": 1.0}
    bench.context("evaluate").clip("model").encode_images(np.zeros((1, 32, 32, 3), np.uint8))
    assert seen == []


@pytest.mark.parametrize("place", ["tensors", "model"])
def test_a_stages_tensors_have_no_methods_of_its_own(bench, place):
    class Listening(torch.Tensor):
        pass

    def stage(context):
        model = context.artifact("poisoned").weights
        value = torch.ones(1)
        value.numpy = lambda: pytest.fail("the stage's own method is called")
        if place == "tensors":
            return Output({"x": value}, model, "poisoned")
        first = next(iter(model))
        return Output({}, {**model, first: model[first].as_subclass(Listening)}, "poisoned")

    def diagnose(_context, output, _manifest):
        return {"x": float(output.tensors["x"].numpy()[0])}

    execution = executed(bench, version=77, run=stage, diagnose=diagnose, epochs=None)
    if place == "tensors":
        *_, record = execution.steps()
        assert record.diagnostics == {"x": 1.0}
    else:
        with pytest.raises(StageFault, match="is a Listening, not a tensor of torch's own class"):
            list(execution.steps())


# Defenses


class Knowing(Defense):
    """Trains without the poison and does not say that it knows it."""

    kind: Literal["knowing"] = "knowing"
    label: ClassVar[str] = "knowing"
    stages: ClassVar[tuple[str, ...]] = ("retrain",)


@pytest.fixture
def knowing(monkeypatch):
    monkeypatch.setattr(DEFENSES, "_items", dict(DEFENSES._items))
    monkeypatch.setattr(DEFENSES, "_modules", dict(DEFENSES._modules))
    return DEFENSES.register(Knowing)


def test_a_defense_that_is_given_the_poison_unasked_is_refused_before_anything_is_trained(knowing, tmp_path):
    trial = tiny_trial({"defense": {"kind": "knowing"}})
    refusal = "says `knows_poison = False`, and runs stages marked `sees_poison`: `retrain`"
    with pytest.raises(UserError, match=refusal) as caught:
        build_pipeline(trial, 0)
    assert [(problem.where, problem.given) for problem in caught.value.problems] == [("defense.kind", "knowing")]
    (record,) = run_trial(tmp_path, {"defense": {"kind": "knowing"}})
    assert (record.state, record.stages) == ("FAILED", ())
    assert "knowing" in record.reason


def test_a_plan_refuses_such_a_defense(knowing, tmp_path):
    tree = {**TINY, "name": "toy", "store": str(tmp_path), "defense": {"kind": "knowing"}}
    with pytest.raises(UserError, match="runs stages marked `sees_poison`: `retrain`"):
        plan_study(StudyConfig.model_validate(tree))
