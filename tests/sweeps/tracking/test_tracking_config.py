from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from sweeps.tracking.config import (
    RELATIVE,
    TrackingSettings,
    local_artifacts,
    sqlite_address,
    sqlite_path,
)
from ubt.common.errors import UserError
from ubt.common.secrets import without_credentials
from ubt.config import validate


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://ann:s3cret@host:5000/x", "https://host:5000/x"),
        ("https://s3cret@host", "https://host"),
        ("postgresql+psycopg2://ann:s3/c@r@et@host/db", "postgresql+psycopg2://host/db"),
        ("postgresql://host/db?user=ann&password=s3cret&x=1", "postgresql://host/db?user=ann&password=…&x=1"),
        ("sqlite:////tmp/my runs/mlflow.db", "sqlite:////tmp/my runs/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
        (
            "cannot reach 'http://ann:s3cret@host' (and http://bob:s3cret@b)",
            "cannot reach 'http://host' (and http://b)",
        ),
    ],
)
def test_credentials_are_removed_from_addresses_and_messages(given: str, shown: str) -> None:
    assert without_credentials(given) == shown


def test_by_default_the_database_lies_beside_the_run_folder(tmp_path: Path) -> None:
    uri = TrackingSettings().address(tmp_path / "runs" / "toy")
    assert uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert local_artifacts(uri) == tmp_path / "runs" / "mlartifacts"
    assert TrackingSettings().artifact_address(tmp_path / "runs" / "toy") == RELATIVE


def test_a_relative_database_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert TrackingSettings(uri="sqlite:///here.db").address(Path("run")) == f"sqlite:///{tmp_path}/here.db"


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
def test_a_database_is_found_whatever_its_folder_is_called(name: str) -> None:
    path = Path("/data") / name / "mlflow.db"
    address = TrackingSettings().address(path.parent / "run")
    assert make_url(address).database == str(path)
    assert sqlite_path(address) == path
    assert validate(TrackingSettings, {"uri": address}, "x").address(Path("run")) == address
    assert local_artifacts(address) == path.parent / "mlartifacts"


def test_what_else_an_address_says_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = TrackingSettings(uri="sqlite:///a%3Fb.db?timeout=30").address(Path("run"))
    assert found == f"{sqlite_address(tmp_path / 'a?b.db')}?timeout=30"
    assert make_url(found).query == {"timeout": "30"}


def test_a_server_decides_itself_where_artifacts_lie(tmp_path: Path) -> None:
    assert TrackingSettings(uri="https://host", artifacts="s3://bucket/files").artifact_address(tmp_path) is None


def test_files_of_a_database_lie_beside_the_run_or_where_the_study_says(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run, database = tmp_path / "runs" / "toy", "postgresql://db.example.org/mlflow"
    assert TrackingSettings(uri=database).artifact_address(run) == f"file://{tmp_path}/runs/mlartifacts"
    assert TrackingSettings(uri=database, artifacts="files").artifact_address(run) == f"file://{tmp_path}/files"
    assert TrackingSettings(uri=database, artifacts="s3://bucket/a").artifact_address(run) == "s3://bucket/a"


@pytest.mark.parametrize("place", ["ftp://host/files", "s3://", "s4://bucket", "http://host/files"])
def test_a_place_that_mlflow_cannot_keep_files_in_is_a_mistake_of_the_study(place: str) -> None:
    with pytest.raises(UserError, match="must be a folder, or s3://"):
        validate(TrackingSettings, {"artifacts": place}, "study.yaml")


def test_a_password_may_be_given_beside_the_study_for_the_address_that_it_names(tmp_path: Path, monkeypatch) -> None:
    study = TrackingSettings(uri="postgresql://db.example.org/mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:s3cret@db.example.org/mlflow")
    assert study.address(tmp_path) == "postgresql://ann:s3cret@db.example.org/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:s3cret@elsewhere.example.org/mlflow")
    assert study.address(tmp_path) == "postgresql://db.example.org/mlflow"
    assert TrackingSettings().address(tmp_path / "runs" / "toy") == f"sqlite:///{tmp_path}/runs/mlflow.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/x", "htp://ann:s3cret@host", "sqlite://", "sqlite:///"])
def test_an_unusable_address_is_a_mistake_of_the_study_told_without_its_password(uri: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(TrackingSettings, {"uri": uri}, "study.yaml")
    assert "study.yaml: uri" in str(caught.value)
    assert "https://" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_settings_text_shows_no_address() -> None:
    assert "s3cret" not in repr(TrackingSettings(uri="http://ann:s3cret@host"))
