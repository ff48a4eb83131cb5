"""No password, key or signature of an address gets into what is shown or written down, whichever way it takes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import begin, study

from sweeps.backends.connection import check_address
from sweeps.cli.app import ShownLine
from sweeps.cli.mistakes import mistakes_text
from sweeps.planning.trials import TrialPlanner
from sweeps.scheduling.outcomes import NumberedTrials
from sweeps.search.proposals import Proposal
from sweeps.tracking.ledger import Source
from sweeps.tracking.payload import of_trial
from sweeps.tracking.study_payload import of_study
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import Problem, UserError
from ubt.data.shards import find_shards
from ubt.engine.runner import failed as failed_record
from ubt.trials.record import State, read_record, write_record

SECRETS = st.text("abcdefgh0123456789%+_-.~", min_size=6, max_size=12).map(lambda text: f"S3CR{text}")
ADDRESSES = st.sampled_from(
    [
        "https://ann:{}@127.0.0.1:9/a.tar",
        "https://{}@127.0.0.1:9/a.tar",
        "https://ann:{}@localhost./a.tar",
        "https://ann:x{}/y@z@127.0.0.1:9/a.tar",
        "s3://AKIAIOSFODNN7:{}@bucket/shards/a.tar",
        "postgresql+psycopg://ann:{}@db:5432/mlflow?sslmode=require",
        "https://127.0.0.1:9/a.tar?X-Amz-Credential=AKIA&X-Amz-Signature={}&part=1",
        "https://127.0.0.1:9/a.tar?X-Amz-Security-Token={}",
        "https://127.0.0.1:9/a.tar?AWSAccessKeyId={}&Signature=x",
        "https://127.0.0.1:9/a.tar?sv=2024&sig={}",
        "postgresql://db/mlflow?user=ann&password={}",
        "mssql://db/mlflow?driver=x;PWD={};y=1",
        "https://127.0.0.1:9/a.tar?auth={}",
    ]
)


def printed(call: Callable[[], Any]) -> str:
    """Return what is printed of the mistakes that a call raises."""
    try:
        call()
    except UserError as error:
        return f"{error} {mistakes_text(error)} {[problem.said for problem in error.problems]}"
    return ""


def of_mistakes(address: str, folder: Path) -> str:
    problem = Problem(f"store {address}", f"cannot be read: GET {address} gave 403", address, f"try {address}")

    def raises() -> None:
        raise UserError([problem] * 30)

    return printed(raises)


def of_stores(address: str, folder: Path) -> str:
    unknown = printed(lambda: ArtifactStore(address.replace("https:", "unheard:")))
    broken = ArtifactStore(folder / "store")
    broken.root = address
    (folder / "store").touch()
    return unknown + printed(lambda: broken.has("unlearn", "key")) + printed(broken.check_writable)


def of_data(address: str, folder: Path) -> str:
    problems: list[Problem] = []
    find_shards(address.replace("s3:", "pipe:"), problems)
    assert problems
    return " ".join(str(problem) for problem in problems)


def of_clusters(address: str, folder: Path) -> str:
    return printed(lambda: check_address(address))


def of_logs(address: str, folder: Path) -> str:
    try:
        raise OSError(f"GET {address}")
    except OSError:
        line = logging.getLogger().makeRecord("x", 30, "f", 1, "%s failed", (address,), sys.exc_info())
    return ShownLine("%(levelname)s %(message)s").format(line)


def of_runs(address: str, folder: Path) -> str:
    """The study and the record of a trial that failed, in the run folder and for MLflow."""
    data = {"kind": "webdataset", "pairs": address, "labels": "l.csv", "classes": "imagenet"}
    asked = study(victim={"data": data}, tracking={"uri": "https://ann:{}@host".format(address.partition("S3CR")[2])})
    changes: dict[str, Any] = {"victim.data": {**data, "labels": "m.csv"}}
    run = begin(folder / "runs", asked)
    assignment = TrialPlanner(asked, address, content_key=lambda _: "key")(Proposal(0, changes), 0).assignment
    failed = failed_record(assignment.record(State.RUNNING), OSError(f"GET {address} gave 403"))
    path = write_record(run.records, failed)
    attempted = failed.model_copy(update={"reason": f"a library says {address}"})
    shown = [run.study.read_text(), path.read_text(), failed.model_dump_json(), repr(of_trial(failed))]
    of_parent = repr(of_study(json.loads(run.study.read_text()), run.path, Source()))
    return " ".join([*shown, of_parent, write_record(run.records, attempted).read_text()])


WAYS = [of_mistakes, of_stores, of_data, of_clusters, of_logs, of_runs]


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25)
@given(secret=SECRETS, address=ADDRESSES)
def test_a_secret_is_not_shown(
    tmp_path_factory: pytest.TempPathFactory, way: Callable[[str, Path], str], secret: str, address: str
) -> None:
    with suppress(ValueError):  # what is no address at all has no password either, and is refused with its field
        shown = way(address.format(secret), tmp_path_factory.mktemp("way"))
        assert shown
        assert secret not in shown


def test_a_record_without_the_password_still_answers_its_trial(tmp_path: Path) -> None:
    data = {"kind": "webdataset", "pairs": "https://ann:s3cret@host/a.tar", "labels": "l.csv", "classes": "imagenet"}
    asked = study(victim={"data": data})
    planned = TrialPlanner(asked, "nowhere", content_key=lambda _: "key")(Proposal(3), 0)
    assert "s3cret" in json.dumps(planned.assignment.config), "the worker needs it"
    record = read_record(write_record(tmp_path, planned.assignment.record(State.DONE)))
    stages = [{"stage": node.spec.name, "key": node.key, "reused": False, "seconds": 0} for node in planned.pipeline]
    done = record.model_validate({**record.as_json(), "stages": stages})
    assert planned.is_answered_by(done)
    trials_of = NumberedTrials(TrialPlanner(asked, "nowhere", content_key=lambda _: "key"), [done], 1)
    assert [trial.name for trial in trials_of(Proposal(9))] == ["t0003"]
