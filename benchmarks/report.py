"""How long a report takes to write, how large its page is, and, with a browser, how soon it shows something.

python benchmarks/report.py [--trials 3 1300 4000] [--seeds 1 5] [--knobs 2 20] [--browser /usr/bin/chromium]

Run folders are made by `made_runs.py`. Writing is timed from a new process's first line on, imports included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from made_runs import make_run

WRITE = """
import time, sys
started = time.perf_counter()
from analysis import write_report
from pathlib import Path
report = write_report(Path(sys.argv[1]))
sizes = [file.stat().st_size for file in report.files]
print(time.perf_counter() - started, time.process_time(), sizes[0], sum(sizes))
"""
PROFILE = WRITE.replace(
    "report = write_report(Path(sys.argv[1]))",
    "import cProfile, pstats; p = cProfile.Profile(); report = p.runcall(write_report, Path(sys.argv[1])); "
    "pstats.Stats(p).sort_stats('cumulative').print_stats(45)",
)


def written(run: Path, profile: bool) -> tuple[float, float, int, int]:
    """Return the seconds that a report takes in a new process, those of its CPU, the bytes of its page and of all."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, "-c", PROFILE if profile else WRITE, str(run)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    if profile:
        print(output)
    seconds, busy, page, files = output.split()[-4:]
    return float(seconds), float(busy), int(page), int(files)


def first_paint(page: Path, browser: str) -> tuple[float, float]:
    """Return the seconds until something is shown, and until all scripts have run; the medians of three starts."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 — only where a browser is asked for

    found: list[tuple[float, float]] = []
    with sync_playwright() as playwright:
        for _ in range(3):
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            tab = chromium.new_page(viewport={"width": 1440, "height": 900})
            started = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="load")
            loaded = time.perf_counter() - started
            tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
            paint = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            found.append((paint / 1000, loaded))
            chromium.close()
    return sorted(found)[1]


def main() -> None:
    """Print one line a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[3, 1300, 4000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--knobs", type=int, nargs="+", default=[2])
    parser.add_argument("--browser", default="")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--folder", type=Path, help="where runs are made, and kept")
    given = parser.parse_args()
    print(
        "trials  seeds  knobs  written in      CPU  page    all files"
        + ("  first paint  loaded" if given.browser else "")
    )
    with tempfile.TemporaryDirectory() as temporary:
        for trials, seeds, knobs in product(given.trials, given.seeds, given.knobs):
            folder = (given.folder or Path(temporary)) / f"t{trials}-s{seeds}-k{knobs}"
            if not folder.exists():
                make_run(folder, trials=trials, seeds=seeds, knobs=knobs)
            seconds, busy, page, files = written(folder, given.profile)
            line = f"{trials:6}  {seeds:5}  {knobs:5}  {seconds:8.1f} s  {busy:5.1f} s"
            line += f"  {page / 1e6:5.2f}M  {files / 1e6:8.2f}M"
            if given.browser:
                paint, loaded = first_paint(folder / "report" / "index.html", given.browser)
                line += f"  {paint:9.2f} s  {loaded:4.2f} s"
            print(line, flush=True)


if __name__ == "__main__":
    main()
