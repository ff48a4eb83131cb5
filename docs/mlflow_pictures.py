"""Take the pictures of MLflow's pages for the documentation: `python docs/mlflow_pictures.py runs/demo [FOLDER]`.

Serves the run by `ubt ui`, and looks at the pages that it names with Debian's Chromium, without a window.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
WIDTH_PX, HEIGHT_PX = 1440, 1000
LOAD_MS = 30_000
"""Of the page's own time: how long it may load and draw."""
PAGES = 4


@contextmanager
def served(run: Path, port: int = 5000) -> Iterator[dict[str, str]]:
    """Serve a run by `ubt ui` for a while; yield the addresses that it names, by what they are."""
    command = [
        sys.executable,
        "-u",
        "-c",
        "from sweeps.cli.start import main; main()",
        "ui",
        str(run),
        "--no-open",
        "--port",
        str(port),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        named: dict[str, str] = {}
        try:
            for line in server.stdout or ():
                what, _, address = line.strip().partition(": ")
                if "/#/" in address:
                    named[what] = address.strip()
                if len(named) == PAGES:
                    break
            yield named
        finally:
            server.terminate()  # it ends as by Ctrl-C, and MLflow with it


def photograph(address: str, picture: Path) -> None:
    """Write what a page shows."""
    with tempfile.TemporaryDirectory() as profile:
        options = [f"--user-data-dir={profile}", f"--window-size={WIDTH_PX},{HEIGHT_PX}", f"--screenshot={picture}"]
        options += ["--headless=new", "--no-sandbox", "--hide-scrollbars", f"--virtual-time-budget={LOAD_MS}"]
        subprocess.run(["chromium", *options, address], check=True, capture_output=True, timeout=300)


def take(run: Path, folder: Path) -> None:
    """Take the picture of every page of a run."""
    with served(run) as named:
        for what, address in named.items():
            photograph(address, folder / f"mlflow-{what.replace(' ', '-')}.png")


if __name__ == "__main__":
    take(Path(sys.argv[1]).absolute(), Path(sys.argv[2]) if sys.argv[2:] else HERE)
