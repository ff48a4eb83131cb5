import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from ubt.common import atomic_files as files
from ubt.common.atomic_files import made_once, reserve, set_aside, whole_file, whole_folder, write_asked, write_whole
from ubt.common.errors import UserError


@pytest.mark.parametrize(("content", "written"), [("ä\n", b"\xc3\xa4\n"), (b"\x00\xff", b"\x00\xff"), ("", b"")])
def test_text_and_bytes_are_written_and_folders_made(tmp_path, content, written):
    path = tmp_path / "new" / "folder" / "file.json"
    assert write_whole(path, content) == path
    assert path.read_bytes() == written
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = write_whole(tmp_path / "record.json", "old")

    def full(self, *_):
        if step == "write_bytes":
            self.touch()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, step, full)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, "empty", "full"])
def test_a_folder_appears_whole_in_the_place_of_the_old_one(tmp_path, before):
    path = tmp_path / "new" / "model"
    if before:
        path.mkdir(parents=True)
    if before == "full":
        (path / "old").touch()
    with whole_folder(path) as unfinished:
        (unfinished / "file").write_text("new")
        assert not (path / "file").exists()
    assert [file.name for file in path.iterdir()] == ["file"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    rename = Path.rename

    def full(self, target):
        if Path(target) == path and (self / "file").exists():
            raise OSError("no space left on device")
        return rename(self, target)

    def write():
        with whole_folder(path) as unfinished:
            (unfinished / "file").touch()
            if step == "write":
                raise OSError("no space left on device")
            monkeypatch.setattr(Path, "rename", full)

    with pytest.raises(OSError, match="no space left"):
        write()
    assert (path / "old").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class TestLasting:
    """What a loss of power must not undo has been synced, the name after the content."""

    @pytest.fixture
    def synced(self, tmp_path, monkeypatch):
        """Names below the test's folder, as they are synced; and whether `file` had its name by then."""
        found = []

        def fsync(opened):
            path = Path(f"/proc/self/fd/{opened}").readlink()
            found.append((str(path.relative_to(tmp_path)), any(tmp_path.rglob("file"))))

        monkeypatch.setattr(os, "fsync", fsync)
        return found

    def test_content_first_then_every_folder_with_a_new_name_in_it(self, tmp_path, synced):
        write_whole(tmp_path / "new" / "folder" / "file", "content", lasting=True)
        (content, named), *folders = synced
        assert content.startswith("new/folder/.file.")
        assert not named
        assert folders == [("new/folder", True), ("new", True), (".", True)]
        synced.clear()
        write_whole(tmp_path / "new" / "folder" / "file", "other", lasting=True)
        assert [name for name, _ in synced[1:]] == ["new/folder"]

    def test_nothing_where_it_need_not_last(self, tmp_path, synced):
        write_whole(tmp_path / "file", "content")
        assert not synced

    def test_what_is_made_once_and_trusted_ever_after(self, tmp_path, synced):
        made_once(tmp_path / "file", lambda unfinished: unfinished.write_text("made"))
        assert [named for _, named in synced] == [False, True]

    def test_everything_in_a_folder(self, tmp_path, synced):
        with whole_folder(tmp_path / "model") as unfinished:
            (unfinished / "part").mkdir()
            (unfinished / "part" / "weights").touch()
        assert [name.rpartition("/")[2] for name, _ in synced[:2]] == ["part", "weights"]

    def test_a_disk_that_turns_out_to_be_full_leaves_the_old_file(self, tmp_path, monkeypatch):
        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        path = write_whole(tmp_path / "file", "old")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_whole(path, "new", lasting=True)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_system_that_has_nothing_to_sync_does_without(self, tmp_path, monkeypatch):
        def lacks(_):
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(os, "fsync", lacks)
        assert write_whole(tmp_path / "file", "content", lasting=True).read_text() == "content"


def test_a_damaged_file_is_kept_by_another_name(tmp_path):
    path = write_whole(tmp_path / "t0.json", "garbage")
    aside = set_aside(path)
    assert list(tmp_path.iterdir()) == [aside]
    assert aside.name.startswith("t0.json.damaged-")
    assert aside.read_text() == "garbage"


def test_readers_never_see_half_a_file_while_several_write(tmp_path):
    path = write_whole(tmp_path / "file", b"0" * 200_000)
    wholes = {bytes([digit]) * 200_000 for digit in b"0123"}
    seen, writing = [], True

    def read():
        while writing:
            seen.append(path.read_bytes() in wholes)

    def write(digit):
        for _ in range(40):
            write_whole(path, bytes([digit]) * 200_000)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(digit,)) for digit in b"123"]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    writing = False
    reader.join()
    assert seen
    assert all(seen)
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_beside_the_file_is_no_other_s_on_any_node(tmp_path):
    with whole_file(tmp_path / "file") as one, whole_file(tmp_path / "file") as other:
        assert one != other
        assert str(os.getpid()) not in one.name.split(".")
        one.write_text("one")
        other.write_text("other")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_path_of_the_user_s_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--graph: cannot be written") as caught:
        write_asked(tmp_path / "file" / "plan.svg", "<svg/>", "--graph")
    assert "file/plan.svg" in str(caught.value)
    assert write_asked(tmp_path / "plan.svg", "<svg/>", "--graph").read_text() == "<svg/>"


class TestMadeOnce:
    def test_what_is_there_is_not_made_again_and_leaves_no_lock(self, tmp_path):
        path = made_once(tmp_path / "new" / "file", lambda unfinished: unfinished.write_text("made"))
        assert made_once(path, lambda _: pytest.fail("made again")).read_text() == "made"
        assert [found.name for found in path.parent.iterdir()] == ["file"]

    def test_of_many_that_want_a_file_one_makes_it(self, tmp_path):
        makers = []

        def make(unfinished):
            makers.append(threading.get_ident())
            time.sleep(0.2)
            unfinished.write_text("made")

        wanting = [threading.Thread(target=made_once, args=(tmp_path / "file", make)) for _ in range(4)]
        for thread in wanting:
            thread.start()
        for thread in wanting:
            thread.join()
        assert len(makers) == 1
        assert [found.name for found in tmp_path.iterdir()] == ["file"]

    def test_a_long_wait_says_for_what(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "_SILENT_SECONDS", 0.05)
        path, waits = tmp_path / "file", threading.Event()
        monkeypatch.setattr(files._log, "warning", lambda *_: waits.set())

        def make(unfinished):
            other.start()
            assert waits.wait(20)
            unfinished.write_text("made")

        other = threading.Thread(target=made_once, args=(path, lambda _: pytest.fail("made again")))
        made_once(path, make)
        other.join()

    def test_giving_up_waiting_leaves_the_lock_to_its_holder(self, tmp_path, monkeypatch):
        def give_up(*_):
            raise KeyboardInterrupt

        def make(unfinished):
            with pytest.raises(KeyboardInterrupt):
                made_once(path, lambda _: pytest.fail("made twice"))
            assert path.with_name(".file.lock").exists()
            unfinished.write_text("made")

        monkeypatch.setattr(files, "_SILENT_SECONDS", 0.05)
        monkeypatch.setattr(files._log, "warning", give_up)
        path = tmp_path / "file"
        assert made_once(path, make).read_text() == "made"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_system_without_locks_does_without(self, tmp_path, monkeypatch):
        def refuses(*_, **__):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("filelock.FileLock.acquire", refuses)
        assert made_once(tmp_path / "file", lambda unfinished: unfinished.write_text("made")).read_text() == "made"

    def test_a_folder_that_cannot_be_written_is_an_error(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            made_once(tmp_path / "file" / "below", lambda _: pytest.fail("made"))


class TestRoom:
    @pytest.fixture
    def holes(self, tmp_path):
        with (tmp_path / "file").open("wb") as stream:
            stream.truncate(1 << 20)
        return tmp_path / "file"

    def test_a_file_with_holes_gets_all_its_room(self, holes):
        assert holes.stat().st_blocks == 0
        reserve(holes)
        assert holes.stat().st_blocks * 512 >= 1 << 20
        assert holes.read_bytes() == bytes(1 << 20)

    def test_a_full_disk_is_an_error_where_room_can_only_be_looked_at(self, holes, monkeypatch):
        monkeypatch.delattr(os, "posix_fallocate")
        reserve(holes)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 21, 1 << 21, 1000))
        with pytest.raises(OSError, match="No space left"):
            reserve(holes)
