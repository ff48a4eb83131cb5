"""Before the first trial: the places that everything is written to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sweeps.run.preflight import prepare
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.common.errors import UserError


@pytest.fixture
def study() -> StudyConfig:
    data = "{kind: scenes, train_pairs: 4, pretrain_pairs: 4, val_images: 12, test_images: 12}"
    return load_study("smoke", [f"victim.data={data}"])


def test_images_are_decoded_into_a_local_store(study: StudyConfig, tmp_path: Path) -> None:
    prepare(study, str(tmp_path))
    assert len(list((tmp_path / "images").iterdir())) == 4


@pytest.mark.parametrize(("store", "elsewhere"), [("memory://preparing", "$UBT_CACHE"), ("{}/store", "$UBT_STORE")])
def test_a_full_disk_is_told_with_its_place(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, elsewhere: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=f"decoded images in {tmp_path}/.*/images: cannot be kept: .*No space") as told:
        prepare(study, store.format(tmp_path))
    assert elsewhere in str(told.value)
    assert "ubt store prune" in str(told.value)


def test_the_disk_for_images_is_tried_where_the_store_is_none(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not when the first image has been fetched and decoded."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("ubt.data.scenes.Scenes.load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=f"decoded images in {tmp_path}/file/images: cannot be kept: .*Not a directory"):
        prepare(study, "memory://preparing")
