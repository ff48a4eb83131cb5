"""Where a study is tracked; loads no MLflow.

An address may hold a user and a password. It is used as given and shown only without them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator, Field

from ubt.common.secrets import without_credentials
from ubt.config import Config

_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
_ARTIFACT_SCHEMES = ("s3", "gs", "wasbs", "abfss", "hdfs")
_SQLITE = re.compile(r"sqlite(\+[a-z0-9_]+)?:///")


def is_remote(uri: str) -> bool:
    """Tell whether `uri` is a server's address, not a database's."""
    return uri.startswith(("http://", "https://"))


def sqlite_path(uri: str) -> Path | None:
    """Return the file behind a sqlite address, as SQLAlchemy reads it, or None for any other.

    Example:
        >>> sqlite_path("sqlite:////data/50%25%3F/mlflow.db?timeout=30")
        PosixPath('/data/50%?/mlflow.db')
    """
    start = _SQLITE.match(uri)
    return Path(unquote(uri[start.end() :].partition("?")[0])).absolute() if start else None


def sqlite_address(path: Path) -> str:
    """Return the address of a database in a file, with any names of folders.

    Example:
        >>> sqlite_address(Path("/data/runs/mlflow.db"))
        'sqlite:////data/runs/mlflow.db'
        >>> sqlite_address(Path("/data/50%?/mlflow.db"))
        'sqlite+pysqlite:////data/50%25%3F/mlflow.db'
    """
    plain = str(path.absolute())
    quoted = plain.replace("%", "%25").replace("?", "%3F")
    # With the driver in it, MLflow does not make the folder that the address would name if nothing were quoted.
    return f"sqlite:///{plain}" if plain == quoted else f"sqlite+pysqlite:///{quoted}"


RELATIVE = "mlflow-artifacts:/"
"""Address of files that lie where the server keeps them: it holds wherever the database is moved to with them."""


def local_artifacts(uri: str) -> Path | None:
    """Return where files with a relative address lie: beside the database; None for one that is no file."""
    database = sqlite_path(uri)
    return database.parent / "mlartifacts" if database else None


def _hide_in_mistakes(uri: object) -> object:
    """Strip an address that will be refused: the refusal shows what was given."""
    return without_credentials(uri) if isinstance(uri, str) and not _is_known(uri) else uri


def _must_be_known(uri: str) -> str:
    if not _is_known(uri):
        allowed = "sqlite:///FILE, postgresql://…, mysql://…, mssql://…, http://… or https://…"
        raise ValueError(f"must be {allowed} (MLflow refuses plain folders)")
    return uri


def _is_known(uri: str) -> bool:
    scheme, found, rest = uri.partition("://")
    base = scheme.partition("+")[0]
    if base == "sqlite":
        return len(rest) > 1 and rest.startswith("/")
    return bool(found) and base in _SCHEMES


def _must_be_a_place(address: str) -> str:
    scheme, found, rest = address.partition("://")
    if found and (scheme not in _ARTIFACT_SCHEMES or not rest.strip("/")):
        allowed = ", ".join(f"{name}://…" for name in _ARTIFACT_SCHEMES)
        raise ValueError(f"must be a folder, or {allowed}")
    return address


# pydantic applies these from right to left until the value is a string, then from left to right.
_Address = Annotated[str, AfterValidator(_must_be_known), BeforeValidator(_hide_in_mistakes)]


class TrackingSettings(Config):
    """Where and whether a study is copied to MLflow."""

    enabled: bool = True
    """Copy the study to MLflow while it runs."""
    uri: _Address | None = Field(default=None, repr=False)
    """Address of an MLflow server or database; by default `mlflow.db` beside the run folder."""
    artifacts: Annotated[str, AfterValidator(_must_be_a_place)] | None = None
    """Where MLflow keeps files, a folder or `s3://BUCKET/PATH`, for an experiment that is new in a database; by default
    `mlartifacts` beside a database in a file, which may be moved with it, else beside the run folder. A server decides
    itself."""
    experiment: str = Field(default="ubt", min_length=1, max_length=500)
    """MLflow experiment that the study's runs appear in."""

    model_limit_mb: int = Field(default=1024, ge=0)
    """Largest model in MB that is logged when a sweep has ended: the chosen one's weights; 0 for none."""

    def address(self, run_folder: Path) -> str:
        """Return the address in use, credentials included; files become absolute, as trials change folder."""
        if self.uri is None:
            return sqlite_address(run_folder.absolute().parent / "mlflow.db")
        if (given := os.environ.get("MLFLOW_TRACKING_URI", "")) and without_credentials(given) == self.uri:
            return given  # the study's address with the user and password that the study should not hold
        database = sqlite_path(self.uri)
        _, mark, query = self.uri.partition("?")
        return f"{sqlite_address(database)}{mark}{query}" if database else self.uri

    def artifact_address(self, run_folder: Path) -> str | None:
        """Return the address of where files lie; None if a server decides."""
        uri = self.address(run_folder)
        if is_remote(uri):
            return None
        if self.artifacts:
            return self.artifacts if "://" in self.artifacts else Path(self.artifacts).absolute().as_uri()
        return RELATIVE if sqlite_path(uri) else (run_folder.absolute().parent / "mlartifacts").as_uri()
