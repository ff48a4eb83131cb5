import threading
from pathlib import Path

import pytest

from ubt.files import write_whole


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
