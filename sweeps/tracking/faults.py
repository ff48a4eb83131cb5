"""Why MLflow did not take something: not now, not before somebody does something, or never this. Loads no MLflow.

What libraries raise is distinguished by MLflow's error codes, the server's status, and the words of databases, whose
drivers have codes of their own each.
"""

from __future__ import annotations

import re

from sweeps.tracking.config import is_remote, sqlite_path
from ubt.common.errors import Problem, UserError
from ubt.common.secrets import without_credentials

_NOISE = re.compile(
    r"\(raised as a result of [^)]*\) | \[SQL: .*| \(Background on this error .*|"
    r"^.*Max retries exceeded.*\(Caused by \w+\([\"']?(\w+\([^)]*\): )?|[\"']\)+$"
)
"""What libraries put before and behind the words that matter: statements with their values, addresses, classes."""


class TrackingFault(Exception):
    """MLflow did not take something. It waits: the run folder has it."""

    headline = "does not answer"
    advice = ""
    """What a user can do about it; empty if waiting is all."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(_NOISE.sub("", " ".join(without_credentials(reason).split())))
        self.advice = advice or self.advice


class UnavailableError(TrackingFault):
    """Not now: the server is down or slow, the disk is full, the database is locked. It is tried again."""


class BlockedError(TrackingFault):
    """Not before somebody does something: no access, no driver. Tried again too, for it may be done meanwhile."""

    headline = "cannot be used"


class BrokenDatabaseError(BlockedError):
    """What MLflow keeps is broken. If it lies in a file of ours, that is set aside and filled anew."""


class RefusedError(TrackingFault):
    """Never this: a parameter was changed, say. The rest goes on."""

    headline = "refuses"


_NEVER = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"})
"""MLflow's codes that no retry mends. Not BAD_REQUEST: any web server that is no MLflow may answer that."""
_NO_ACCESS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"})
_LOG_IN = (
    "give user and password in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, a token in "
    "MLFLOW_TRACKING_TOKEN, or an address with both: `ubt track RUN --uri …`"
)
_NO_PERMISSION = (
    "have its user given the permission to edit the experiment, choose another `tracking.experiment`, or " + _LOG_IN
)
_LOG_IN_TO_DATABASE = "give an address with user and password: `ubt track RUN --uri …` or MLFLOW_TRACKING_URI"
_ADDRESS = "check the address (`tracking.uri`, or `ubt track RUN --uri …`)"
_DRIVERS = {
    "psycopg": "`pip install 'ubt-sweeper[postgres]'`",
    "MySQLdb": "`pip install pymysql`, and mysql+pymysql:// in the address",
    "pyodbc": "`pip install pyodbc`",
    "boto3": "`pip install 'ubt-sweeper[s3]'`",
}
"""What brings the module that SQLAlchemy imports for a database, or MLflow for files on S3."""


_TRANSIENT = re.compile(
    r"(?i)starting up|shutting down|in recovery|too many (clients|connections)|connection slots|"
    r"terminating connection|database is locked|disk is full|no space left|deadlock"
)
_WORDS: tuple[tuple[re.Pattern[str], type[TrackingFault], str], ...] = (
    (re.compile(r"(?i)disk image is malformed|file is not a database|no such (table|column)|"
                r"could not decode to utf-8|table \S+ already exists"),
     BrokenDatabaseError, "have MLflow's database mended, or name another one with `ubt track RUN --uri …`"),
    (re.compile(r"(?i)readonly database|unable to open database file|permission denied|read-only file system"),
     BlockedError, "make its folder writable, or name another database with `ubt track RUN --uri …`"),
    (re.compile(r"(?i)password|authentication|access denied|pg_hba\.conf|login failed|role .* does not exist"),
     BlockedError, _LOG_IN_TO_DATABASE),
    (re.compile(r"(?i)database .* does not exist|unknown database|cannot open database"),
     BlockedError, f"make the database first, or {_ADDRESS}"),
    (re.compile(r"(?i)certificate.verify.failed|SSLError|SSLCertVerification"),
     BlockedError, "name its authority's certificate in MLFLOW_TRACKING_SERVER_CERT_PATH"),
    (re.compile(r"(?i)name or service not known|nodename nor servname|could not translate host|not resolve"),
     BlockedError, _ADDRESS),
    (re.compile(r"(?i)out-of-date database schema"),
     BlockedError, "an older MLflow made it: `mlflow db upgrade ADDRESS` brings it up to date"),
    (re.compile(r"(?i)can't locate revision"),
     BlockedError, "a newer MLflow made it: install that one here, or name another database"),
    (re.compile(r"(?i)error code 404|not in a valid JSON format|invalid url|no host supplied"), BlockedError, _ADDRESS),
)  # fmt: skip


def fault_of(error: BaseException, connecting: bool = False) -> TrackingFault:
    """Return what `error`, of MLflow or a library under it, says of what was to be sent.

    Args:
        error: what was raised.
        connecting: nothing was to be sent yet, so that nothing can have been refused.
    """
    if isinstance(error, TrackingFault):
        return error
    text = str(error) if getattr(error, "error_code", "") else f"{type(error).__name__}: {error}"
    code, status = getattr(error, "error_code", ""), getattr(getattr(error, "response", None), "status_code", 0)
    if code in _NO_ACCESS or status in (401, 403):
        refused = status == 403 or code == "PERMISSION_DENIED"
        return BlockedError(text, _NO_PERMISSION if refused else _LOG_IN)
    if code in _NEVER and not connecting:
        return RefusedError(text)
    if isinstance(error, ImportError):
        return BlockedError(
            f"a library is missing: {error}", f"{_bringing(error)}; then `ubt track RUN` sends the rest"
        )
    if not _TRANSIENT.search(text):
        for words, fault, advice in _WORDS:
            if words.search(text):
                return fault(text, advice)
    return UnavailableError(text)


def _bringing(error: ImportError) -> str:
    return next((how for name, how in _DRIVERS.items() if name in str(error)), "install it here")


def check_driver(uri: str | None) -> None:
    """Check that what talks to a database is installed, so that it is not missed when the first trial has run.

    Raises:
        UserError: if it is not.
    """
    if uri is None or is_remote(uri) or sqlite_path(uri):
        return
    import sqlalchemy  # noqa: PLC0415 — 0.3 s, and few studies need it

    try:
        sqlalchemy.make_url(uri).get_dialect().import_dbapi()
    except (ImportError, sqlalchemy.exc.ArgumentError) as error:
        advice = _bringing(error) if isinstance(error, ImportError) else "leave out what stands behind the `+`"
        message = f"what talks to this database is not installed: {error}"
        raise UserError(Problem("tracking.uri", message, without_credentials(uri), advice)) from error
