"""A sweep's own Ray: what it listens on, who is let in, and who may read the token."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import ray
from test_sweep_ray import descendants

from sweeps.backends import connection
from sweeps.backends.private import LOOPBACK, have_token, own_folder
from sweeps.study.config import Resources
from ubt.common.errors import UserError

ASK = "from ray._raylet import GcsClient; print(len(GcsClient(address={!r}).get_all_node_info(timeout=5)))"
LISTENING = "0A"
PRIVATE = """
import sys
import ray
from sweeps.backends.connection import start_ray
from sweeps.backends.lifetime import stop_ray
from sweeps.study.config import Resources
start_ray("local", Resources(concurrent_trials=1))
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
stop_ray()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without a token, and an environment without one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestToken:
    def test_is_readable_by_nobody_else_from_its_first_moment_on(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[int] = []
        really = os.open

        def watched(path: Path, flags: int, permissions: int = 0o777) -> int:
            opened.append(really(path, flags, permissions))
            assert mode(Path(path)) == 0o600
            return opened[-1]

        before = os.umask(0)
        try:
            monkeypatch.setattr("sweeps.backends.private.os.open", watched)
            have_token()
        finally:
            os.umask(before)
        assert opened
        token = home / ".ray" / "auth_token"
        assert mode(token) == 0o600
        assert len(token.read_text()) == 64
        assert list(token.parent.iterdir()) == [token]

    def test_that_ray_made_is_kept_and_closed_to_others(self, home: Path) -> None:
        token = home / ".ray" / "auth_token"
        token.parent.mkdir()
        token.write_text("ray's own")
        token.chmod(0o644)
        have_token()
        assert (mode(token), token.read_text()) == (0o600, "ray's own")

    def test_of_whoever_was_quicker_is_everybody_s(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        token = home / ".ray" / "auth_token"

        def write_first(link: Path, target: Path) -> None:
            token.write_text("of another sweep")
            os.link(target, link)

        monkeypatch.setattr(Path, "hardlink_to", write_first)
        have_token()
        assert token.read_text() == "of another sweep"
        assert list(token.parent.iterdir()) == [token]

    def test_is_kept_in_memory_where_no_file_can_be_written(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (home / ".ray").touch()
        monkeypatch.setenv("RAY_AUTH_TOKEN", "")
        have_token()
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64

    @pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
    def test_that_the_user_has_is_taken(self, home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "given")
        have_token()
        assert not list(home.iterdir())


class TestFolder:
    @pytest.fixture
    def shared(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A folder for temporary files whose name is as short as they are."""
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            monkeypatch.setenv("RAY_TMPDIR", folder)
            yield Path(folder)

    def test_leaves_space_for_the_names_of_sockets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        long = tmp_path / ("long" * 10)
        long.mkdir()
        monkeypatch.setenv("RAY_TMPDIR", str(long))
        socket = own_folder() / "ray" / "session_2026-11-26_03-17-18_459451_4194304" / "sockets" / "plasma_store"
        assert len(str(socket)) <= 107
        assert not list(long.iterdir())

    def test_is_closed_to_others_and_used_again(self, shared: Path) -> None:
        folder = own_folder()
        assert (folder.parent, mode(folder)) == (shared, 0o700)
        folder.chmod(0o777)
        assert own_folder() == folder
        assert mode(folder) == 0o700

    @pytest.mark.parametrize("made", ["link", "file", "by another user"])
    def test_that_somebody_else_has_laid_there_is_not_used(
        self, shared: Path, made: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        laid = shared / f"ubt-{os.getuid()}"
        (shared / "theirs").mkdir()
        if made == "link":
            laid.symlink_to(shared / "theirs")
        elif made == "file":
            laid.touch()
        else:
            monkeypatch.setattr(os, "getuid", lambda: 12345)
            (shared / "ubt-12345").mkdir()
        folder = own_folder()
        assert folder not in (laid, shared / "ubt-12345")
        assert mode(folder) == 0o700
        assert not list((shared / "theirs").iterdir())


@pytest.fixture
def private(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, str]]:
    """The process that has a private Ray, started where the environment asks for none that is safe; its address.

    A process of its own, as Ray keeps for good whether it wants tokens, which a later test's cluster does not.
    """
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path_factory.mktemp("r")))
    words = [sys.executable, "-c", PRIVATE]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.pid, process.stdout.readline().strip()
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_private_ray_is_out_of_reach(private: tuple[int, str], home: Path) -> None:
    process, address = private
    assert address.startswith(f"{LOOPBACK}:")
    ours = {str(process), *map(str, descendants(process))}
    listening = [where for pid, where in listeners() if pid in ours]
    assert len(listening) >= 5, "head, raylet, its agents, workers"
    assert set(listening) == {LOOPBACK}
    started = [word for pid in ours for word in psutil.Process(int(pid)).cmdline()[:3]]
    assert [word for word in started if word.endswith("/raylet")]
    assert [word for word in started if word.endswith(("/dashboard.py", "/monitor.py", "/log_monitor.py"))] == []
    assert mode(home / ".ray" / "auth_token") == 0o600
    assert mode(own_folder()) == 0o700
    assert list(own_folder().glob("ray/session_2*/sockets/*"))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = (home / ".ray" / "auth_token").read_text()
    assert ask(address, {**plain, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}).stdout == "1\n"
    for credentials in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        refused = ask(address, {**plain, **credentials})
        assert refused.returncode == 1
        assert "InvalidAuthToken" in refused.stderr


def ask(address: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Ask a Ray how many nodes it has."""
    words = [sys.executable, "-c", ASK.format(address)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100, check=False)


def listeners() -> Iterator[tuple[str, str]]:
    """Yield the process and the interface of every TCP socket that is listened on, as Linux tells it."""
    sockets: dict[str, str] = {}
    for table, words in (("tcp", 1), ("tcp6", 4)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            host = bytes.fromhex(fields[1].partition(":")[0])
            last = host[4 * (words - 1) :][::-1]  # of IPv6 those that are written `::ffff:127.0.0.1`
            if fields[3] == LISTENING:
                sockets[f"socket:[{fields[9]}]"] = ".".join(map(str, last))
    for opened in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(opened.readlink())
        except OSError:
            continue
        if target in sockets:
            yield opened.parts[2], sockets[target]


@pytest.mark.parametrize("error", [Exception("timed out during startup"), OSError("no port is free")])
def test_a_ray_that_does_not_come_up_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(connection, "kept_private", lambda: nullcontext({}))
    monkeypatch.setattr(ray, "init", Mock(side_effect=error))
    with pytest.raises(UserError, match=f"Ray cannot be started: {error}"):
        connection._start_private(Resources(concurrent_trials=1))


def test_an_error_of_our_own_in_its_start_is_no_such_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "kept_private", lambda: nullcontext({}))
    monkeypatch.setattr(ray, "init", Mock(side_effect=TypeError("no such argument")))
    with pytest.raises(TypeError):
        connection._start_private(Resources(concurrent_trials=1))
