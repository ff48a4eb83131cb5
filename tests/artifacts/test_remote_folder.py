from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile

from ubt.artifacts.remote_folder import RemoteFolder, UnusableFolder, at_hand, place_of
from ubt.common.errors import UserError


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteFolder]:
    """Give a folder in this process's memory, as an object store has it."""
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "cache"))
    yield RemoteFolder(f"memory://{uuid4().hex}/runs/demo")
    fsspec.filesystem("memory").store.clear()


class TestPlaces:
    @pytest.mark.parametrize("given", ["s3://bucket/runs", "s3://bucket/runs/", "gs://bucket/runs"])
    def test_an_address_stays_one(self, given: str) -> None:
        assert place_of(given, "--out") == given.rstrip("/")

    @pytest.mark.parametrize("given", ["runs", "/data/runs", "./a:b", Path("runs")])
    def test_anything_else_is_a_path(self, given: Path | str) -> None:
        assert place_of(given, "--out") == Path(given)

    def test_a_home_folder_is_spelt_out(self) -> None:
        assert place_of("~/runs", "--out") == Path.home() / "runs"

    def test_a_file_s_address_is_a_path(self) -> None:
        assert place_of("file:///data/runs", "--out") == Path("/data/runs")

    @pytest.mark.parametrize("given", ["s3:/bucket/runs", Path("s3://bucket/runs")])
    def test_an_address_with_one_slash_is_no_folder_called_s3(self, given: Path | str) -> None:
        with pytest.raises(UserError, match=r"address with one slash.*s3:/bucket/runs") as caught:
            place_of(given, "--out")
        assert "s3://" in str(caught.value)


def test_what_is_written_is_read(remote: RemoteFolder) -> None:
    remote.write({"study.json": b"{}", "records/t0.json": b"1"})
    assert remote.read("records/t0.json") == b"1"
    assert remote.read("records/t1.json") is None
    assert set(remote.stamps()) == {"study.json", "records/t0.json"}
    assert RemoteFolder(remote.address.rpartition("/")[0]).folders() == ["demo"]
    assert RemoteFolder(f"{remote.address}-none").folders() == []


def test_notes_are_no_part_of_what_it_holds(remote: RemoteFolder) -> None:
    assert remote.note("last") is None
    remote.note("last", b"me")
    assert remote.note("last") == b"me"
    assert remote.stamps() == {}


class TestCopies:
    def test_only_what_has_changed_is_fetched_again(self, remote: RemoteFolder, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        remote.write({"study.json": b"{}", "records/t0.json": b"1", "records/t1.json": b"2"})
        assert remote.bring(copy) == ["records/t0.json", "records/t1.json", "study.json"]
        assert remote.bring(copy) == []
        remote.write({"records/t1.json": b"22"})
        assert remote.bring(copy) == ["records/t1.json"]
        assert (copy / "records/t1.json").read_bytes() == b"22"

    def test_what_is_gone_there_goes_here(self, remote: RemoteFolder, tmp_path: Path) -> None:
        remote.write({"a/one": b"1", "b/two": b"2"})
        remote.bring(tmp_path)
        fsspec.filesystem("memory").rm_file(f"{remote.address.removeprefix('memory:/')}/a/one")
        assert remote.bring(tmp_path, ["b"]) == []
        assert (tmp_path / "a/one").exists(), "only b was asked for"
        remote.bring(tmp_path)
        assert not (tmp_path / "a/one").exists()
        assert (tmp_path / "b/two").exists()

    def test_a_part_is_fetched_alone(self, remote: RemoteFolder, tmp_path: Path) -> None:
        remote.write({"study.json": b"{}", "records/t0.json": b"1", "report/index.html": b"<"})
        assert remote.bring(tmp_path, ["study.json", "records"]) == ["records/t0.json", "study.json"]
        assert remote.bring(tmp_path, ["report"]) == ["report/index.html"]
        assert remote.bring(tmp_path) == []

    def test_a_file_that_was_removed_here_is_fetched_again(self, remote: RemoteFolder, tmp_path: Path) -> None:
        remote.write({"study.json": b"{}"})
        remote.bring(tmp_path)
        (tmp_path / "study.json").unlink()
        assert remote.bring(tmp_path) == ["study.json"]

    @pytest.mark.parametrize("name", ["../outside", "a/../../outside", "a//b", "a\\..\\b"])
    def test_a_name_that_leads_out_of_the_copy_is_left_there(
        self, remote: RemoteFolder, tmp_path: Path, name: str
    ) -> None:
        memory = fsspec.filesystem("memory")
        root = remote.address.removeprefix("memory:/")
        memory.store[f"{root}/{name}"] = MemoryFile(memory, name, b"x")
        remote.write({"fine": b"1"})
        assert set(remote.stamps()) == {"fine"}
        remote.bring(tmp_path / "below/copy")
        assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.name[0] != "."] == ["fine"]


class TestAtHand:
    def test_a_folder_of_this_machine_is_itself(self, tmp_path: Path) -> None:
        with at_hand(tmp_path) as here:
            assert here == tmp_path

    def test_a_copy_is_called_as_the_folder(self, remote: RemoteFolder) -> None:
        remote.write({"study.json": b"{}"})
        with at_hand(remote.address) as here:
            assert (here.name, (here / "study.json").read_bytes()) == ("demo", b"{}")

    def test_what_is_written_under_a_name_goes_there_and_nothing_else(self, remote: RemoteFolder) -> None:
        remote.write({"report/old.csv": b"1", "report/index.html": b"1"})
        with at_hand(remote.address, written="report") as here:
            (here / "report/index.html").write_bytes(b"new")
            (here / "elsewhere").write_bytes(b"2")
        assert remote.read("report/index.html") == b"new"
        assert remote.read("report/old.csv") == b"1"
        assert remote.read("elsewhere") is None


def test_two_runs_of_one_name_at_two_addresses_are_kept_apart(remote: RemoteFolder) -> None:
    other = RemoteFolder(remote.address.replace("/runs/", "/others/"))
    assert other.in_cache("runs") != remote.in_cache("runs")
    assert other.in_cache("runs").name == remote.in_cache("runs").name == "demo"


@pytest.mark.parametrize("address", ["s4://bucket/runs", "memory://bucket/.."])
def test_an_address_that_is_none_is_a_mistake(address: str) -> None:
    with pytest.raises(UserError):
        RemoteFolder(address)


def test_what_a_file_system_refuses_is_said_with_the_address_and_without_its_password(
    remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise PermissionError("403 for s3://ann:s3cret@bucket")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "find", refuses)
    with pytest.raises(UnusableFolder, match="cannot be read: PermissionError: 403") as caught:
        remote.stamps()
    assert remote.address in str(caught.value)
    assert "s3cret" not in str(caught.value)
