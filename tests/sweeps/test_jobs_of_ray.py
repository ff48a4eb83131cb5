"""A sweep that runs as a job of Ray's: what it knows of that, and where its run folder may not lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_runs import study

from sweeps.detached.jobs import JobServer, JobState, new_job, server_address
from sweeps.detached.launch import NAME, Launched, launched_text, study_text
from sweeps.detached.look import Look, Looker, is_run, job_of, run_of
from sweeps.run.folder import new_run
from sweeps.run.job import JOB_FILE, OUT, Job
from sweeps.study.builtin import builtin_studies
from sweeps.study.loading import load_study
from ubt.common.errors import UserError

IN_RAY = "/tmp/ray/session_2026-11-26_04-00-00_000000_7/runtime_resources/working_dir_files/_ray_pkg_0123"


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> str:
    """Be a job, as Ray's supervisor starts one."""
    told = {
        "job_submission_id": "ubt-toy-1",
        "ubt.server": "http://head:8265",
        "ubt.command": "ubt launch toy --resume",
    }
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}, "metadata": told}))
    return "ubt-toy-1"


class TestRunFolders:
    def test_one_that_ray_would_delete_with_the_job_is_refused(self, job: str) -> None:
        with pytest.raises(UserError, match="--out: lies in the folder that Ray makes for this job") as caught:
            new_run(Path(IN_RAY) / "runs", "toy").check_writable()
        assert "s3://" in str(caught.value)

    def test_the_same_folder_is_fine_for_who_is_no_job(self) -> None:
        new_run(Path(IN_RAY) / "runs", "toy").check_writable()

    def test_any_other_one_is_fine_for_a_job(self, job: str, tmp_path: Path) -> None:
        new_run(tmp_path, "toy").check_writable()

    def test_the_job_is_noted_in_its_run(self, job: str, tmp_path: Path) -> None:
        with new_run(tmp_path, "toy").taken() as run:
            run.begin(study())
        assert job_of(str(run.path), None) == (job, "http://head:8265")
        assert job_of(str(run.path), "http://127.0.0.1:9") == (job, "http://127.0.0.1:9")

    def test_it_is_no_longer_noted_when_a_sweep_in_a_shell_goes_on(
        self, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with new_run(tmp_path, "toy").taken() as run:
            run.begin(study())
            monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
            run.begin(study())
        with pytest.raises(UserError, match="no job of a cluster works in this run"):
            job_of(str(run.path), None)

    def test_a_sweep_in_a_shell_notes_none(self, tmp_path: Path) -> None:
        with new_run(tmp_path, "toy").taken() as run:
            run.begin(study())
        assert not (run.path / JOB_FILE).exists()


@pytest.mark.parametrize(
    "said", ["", "{", "[]", '{"metadata": null}', '{"metadata": {}}', '{"metadata": {"job_name": "x"}}']
)
def test_what_ray_does_not_say_of_a_job_is_no_job(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", said)
    assert Job.of_this_process() is None


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b'{"id": ""}', b'{"id": 5, "server'])
def test_a_note_that_says_nothing_is_none(content: bytes | None) -> None:
    assert Job.read(content) is None


@pytest.mark.parametrize("name", builtin_studies())
def test_a_study_goes_to_the_cluster_as_it_is_here(name: str, tmp_path: Path) -> None:
    """With the fields that follow from others written out, too."""
    here = load_study(name, ["seeds=[1, 2]", "victim.implant.learning_rate=1e-6"])
    (tmp_path / "study.yaml").write_text(study_text(here))
    assert load_study(str(tmp_path / "study.yaml")) == here


class TestAddresses:
    @pytest.mark.parametrize(
        "address", ["head", "head:8265", "ray://head:10001", "http://", "ftp://head:21", "http://head:x"]
    )
    def test_what_is_no_job_server_is_said_at_once(self, address: str) -> None:
        with pytest.raises(UserError, match="must be the address of a cluster's job server, http://HOST:8265"):
            JobServer(address)

    def test_ray_s_client_is_for_the_foreground(self) -> None:
        with pytest.raises(UserError, match="`ubt sweep` takes ray:// addresses"):
            JobServer("ray://head:10001")

    def test_nothing_there_is_said_at_once_and_without_a_password(self, free_tcp_port: int) -> None:
        with pytest.raises(UserError, match=f"nothing answers at 127.0.0.1:{free_tcp_port}") as caught:
            JobServer(f"http://ann:s3cret@127.0.0.1:{free_tcp_port}")
        assert "s3cret" not in str(caught.value)
        assert "--dashboard-host" in str(caught.value)

    def test_the_one_that_is_given_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://variable")
        assert server_address("http://given", "http://noted") == "http://given"
        assert server_address(None, "http://noted") == "http://noted"
        assert server_address(None) == "http://variable"
        monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
        with pytest.raises(UserError, match="RAY_API_SERVER_ADDRESS"):
            server_address(None)


class TestLooks:
    def test_a_run_is_told_from_a_job(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "demo").mkdir()
        assert [is_run(given) for given in ("s3://bucket/runs/demo", "runs/demo", "demo", "ubt-demo-1")] == [
            True,
            True,
            True,
            False,
        ]

    def test_the_run_of_a_job_is_found_by_the_note_in_it(self, job: str, tmp_path: Path) -> None:
        state = JobState("RUNNING", "", {OUT: str(tmp_path), NAME: "toy"})
        assert run_of(job, state) is None
        with new_run(tmp_path, "toy").taken() as earlier:
            earlier.begin(study())
            (earlier.path / JOB_FILE).write_text('{"id": "another"}')
        with new_run(tmp_path, "toy").taken() as run:
            run.begin(study())
        assert run_of(job, state) == str(run.path)
        assert run_of(job, JobState("RUNNING", "", {})) is None, "it was not launched by us"

    def test_of_a_job_without_a_run_the_server_s_word_is_shown(self) -> None:
        failed = Look(None, "ubt-toy-1", "http://head:8265", JobState("FAILED", "exit code 127\nubt: not found", {}))
        assert "ubt-toy-1 at http://head:8265: FAILED" in failed.text
        assert "ubt: not found" in failed.text
        assert (failed.goes_on, failed.status) == (False, 3)
        assert Look(None, "j", "s", JobState("PENDING", "")).goes_on

    def test_a_run_that_is_none_is_a_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"is no run folder: it has no study\.json"):
            Looker(str(tmp_path), None).look()


def test_what_is_launched_is_told_with_all_that_one_does_with_it() -> None:
    there = launched_text(Launched("ubt-demo-1", "http://head:8265", "s3://bucket/runs", "demo"))
    for line in (
        "ubt status --watch ubt-demo-1 --address http://head:8265",
        "ubt logs --follow  ubt-demo-1 --address http://head:8265",
        "ubt stop           ubt-demo-1 --address http://head:8265",
        "ubt report         s3://bucket/runs/demo",
    ):
        assert line in there
    assert "on the cluster's head" in launched_text(Launched("ubt-demo-1", "http://head:8265", "~/runs", "demo"))


def test_no_two_jobs_are_called_alike() -> None:
    assert new_job("demo") != new_job("demo")
