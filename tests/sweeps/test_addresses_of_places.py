"""Options that take an address, and those that take a place of this machine alone: neither makes a folder `s3:`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.cli import app


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "smoke", "--address", "inline", "--out", "s3:/bucket/runs"],
        ["run", "smoke", "--out", "s3:/bucket/runs"],
        ["sweep", "smoke", "--address", "inline", "--out", "nothing://bucket/runs"],
        ["report", "s3:/bucket/runs/demo"],
        ["report", "nothing://bucket/runs/demo"],
        ["figures", "runs/demo", "--out", "s3://bucket/figures"],
        ["export", "runs/demo", "--out", "s3://bucket/model.pt"],
        ["poison", "smoke", "--out", "s3://bucket/pairs"],
        ["clean", "--model", "tiny-rn", "--checkpoint", "x", "--pairs", "y", "--out", "s3://bucket/cleaned"],
        ["store", "prune", "--keep", "nothing://bucket/runs/demo"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_used_is_a_mistake_and_nothing_is_made(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ubt", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    told = capsys.readouterr().err
    assert (ended.value.code, list(tmp_path.iterdir())) == (2, []), told
    assert "://" in told or "s3:/" in told
    assert "Traceback" not in told
