"""A path that no file system takes is a mistake wherever it is given: told with status 2, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.cli.app import main

LONG = "x" * 300
LONGER = "x/" * 3000


@pytest.mark.parametrize("path", [LONG, LONGER], ids=["a long name", "a long path"])
@pytest.mark.parametrize(
    "words",
    [
        "plan PATH",
        "plan PATH.yaml",
        "plan smoke --set plugins=[PATH.py]",
        "plan smoke --set victim.attack={kind:\xa0overlay,\xa0image:\xa0PATH.png}",
        "plan smoke --set victim.attack={kind:\xa0badclip_patch,\xa0image:\xa0PATH.png}",
        "plan smoke --set victim.model.checkpoint=PATH.pt",
        "plan smoke --set victim.poison={kind:\xa0given,\xa0manifest:\xa0PATH.csv}",
        "run smoke --out PATH",
        "run smoke --set victim.data={kind:\xa0csv,\xa0pairs:\xa0PATH.csv,\xa0labels:\xa0PATH,\xa0classes:\xa0PATH}",
        "poison smoke --out PATH",
        "export PATH --out model.pt",
        "report PATH",
        "clean --model RN50 --checkpoint PATH.pt --pairs PATH.csv --out PATH",
    ],
)
def test_it_is_a_mistake_wherever_it_is_given(
    words: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["ubt", *(word.replace("\xa0", " ").replace("PATH", path) for word in words.split(" "))]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert "problem" in told.err
    assert len(told.err) < 10_000, "the path is not repeated at its whole length"
    assert not list(tmp_path.iterdir())
