"""Pictures of the report and of the page of `ubt watch` for these docs, in headless Chromium.

    python docs/report_pictures.py runs/demo           # a search; and an ablation
    python docs/report_pictures.py runs/demo --live    # as it looks now, while it is swept

The ablation is made by `benchmarks/made_runs.py`: nothing has computed it, and its code is called `made-up`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from analysis import write_report
from sweeps.watching.look import Watched
from sweeps.watching.server import Pages, serve

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

from made_runs import make_run  # noqa: E402 — a script beside the package


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder of a search with 20 trials at least")
    parser.add_argument("--live", action="store_true", help="only the page of `ubt watch`, while the run is at work")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.browser, args=["--no-sandbox"])
        if given.live:
            pages = Pages()
            pages.take(Watched(str(given.run)).look())
            server = serve(pages, 0)
            picture(browser, f"http://127.0.0.1:{server.server_address[1]}/", DOCS / "report-live.png")
            server.shutdown()
        else:
            search = write_report(given.run).page.as_uri()
            ablation = write_report(make_run(Path(folder) / "ablation", kind="ablation", seeds=5)).page.as_uri()
            for scheme in ("light", "dark"):
                for width in (1440, 800):
                    picture(browser, search, DOCS / f"report-{scheme}-{width}.png", width, scheme)
            picture(browser, ablation, DOCS / "report-ablation.png")
            picture(browser, search, DOCS / "report-trial.png", trial="t0012")
        browser.close()


def picture(
    browser: Browser, address: str, path: Path, width: int = 1440, scheme: str = "light", trial: str = ""
) -> None:
    """Take a picture of a page once its figures are drawn; with a trial selected, of the table and what it shows."""
    dark = "dark" if scheme == "dark" else "light"
    page = browser.new_page(viewport={"width": width, "height": 1500}, color_scheme=dark)  # type: ignore[arg-type]
    page.goto(address)
    page.locator(".tabulator-row").first.wait_for()
    page.locator(".plot.js-plotly-plot").first.wait_for()
    if trial:
        page.set_viewport_size({"width": width, "height": 900})
        page.get_by_label("search the trials").fill("t001")
        page.locator(".tabulator-row", has_text=trial).click()
        page.locator("#trials").scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    page.screenshot(path=path)
    page.close()


if __name__ == "__main__":
    main()
