"""A store at an address: the machine that starts a cluster's sweep decodes nothing, a node that runs trials does."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from sweeps.backends import node_tasks
from sweeps.backends.connection import start_ray
from sweeps.backends.lifetime import stop_ray
from sweeps.run import preflight
from sweeps.run.preflight import decode_on_a_node, decode_sent, prepare, trials_of
from sweeps.study.config import Resources, StudyConfig
from sweeps.study.loading import load_study
from ubt.common.errors import Problem, UserError

DATA = "{kind: scenes, train_pairs: 4, pretrain_pairs: 4, val_images: 12, test_images: 12}"
STORE = "memory://decoding-elsewhere"


@pytest.fixture
def study() -> StudyConfig:
    return load_study("smoke", [f"victim.data={DATA}"])


def sent(study: StudyConfig, store: str) -> preflight.Decoded:
    """Decode on a "node" that gets what travels there, and gives what travels back."""
    there = pickle.loads(pickle.dumps(([trial.as_json() for trial in trials_of(study)], study.plugins, store)))
    return pickle.loads(pickle.dumps(decode_sent(*there)))


def test_what_is_decoded_elsewhere_is_not_decoded_here(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "here"))
    monkeypatch.setattr(preflight, "decode_here", lambda *_: pytest.fail("decoded here"))
    images = prepare(study, STORE, lambda *_: ([], {"images-1.npy": 7}))
    assert images == {"images-1.npy": 7}
    assert not (tmp_path / "here" / "images").exists()


def test_a_node_says_the_same_as_this_machine_would(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "here"))
    here = prepare(study, STORE)
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "there"))
    assert prepare(study, STORE, sent) == here
    assert {path.name for path in (tmp_path / "there" / "images").iterdir()} == set(here)


def test_what_a_node_finds_wrong_is_told_beside_what_is_wrong_here(study: StudyConfig) -> None:
    wrong = study.model_copy(
        update={"tracking": study.tracking.model_copy(update={"uri": "postgresql+nothing://host/database"})}
    )
    with pytest.raises(UserError) as told:
        prepare(wrong, STORE, lambda *_: ([Problem("pairs.csv, row 3", "cannot be decoded")], {}))
    assert {problem.where for problem in told.value.problems} == {"pairs.csv, row 3", "tracking.uri"}


class TestOnRay:
    @pytest.fixture(autouse=True, scope="class")
    def _ray(self) -> Iterator[None]:
        start_ray("local", Resources())
        yield
        stop_ray()

    def test_images_are_decoded_by_another_process_with_a_trial_s_resources(
        self, study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preflight, "decode_here", lambda *_: pytest.fail("decoded here"))
        images = prepare(study, f"file://{tmp_path}/store", decode_on_a_node)
        assert len(images) == 4
        assert all(size > 0 for size in images.values())

    def test_a_mistake_comes_back_as_one(self) -> None:
        with pytest.raises(UserError, match="no_such_module"):
            node_tasks.on_a_node("a test", Resources(), decode_sent, [], ["no_such_module"], STORE)

    def test_what_fails_otherwise_is_one_message_with_what_to_do(self) -> None:
        def divide(one: int, other: int) -> float:
            return one / other

        with pytest.raises(UserError, match=r"a test, which failed on a node: .*ZeroDivisionError") as told:
            node_tasks.on_a_node("a test", Resources(), divide, 1, 0)
        assert "ubt doctor" in str(told.value)

    def test_after_an_interruption_the_cluster_takes_the_next_task(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def divide(one: int, other: int) -> float:
            return one / other

        asked = ray.get
        monkeypatch.setattr(ray, "get", lambda task, timeout: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            node_tasks.on_a_node("a test", Resources(), decode_sent, [], [], STORE)
        monkeypatch.setattr(ray, "get", asked)
        assert node_tasks.on_a_node("a test", Resources(), divide, 6, 2) == 3
