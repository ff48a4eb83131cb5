"""Take the pictures of MLflow's pages for the documentation: `python docs/mlflow_pictures.py runs/demo [FOLDER]`.

Serves the run by `ubt ui`, and looks at the pages that it names, and at the best trial's, with Chromium (Debian's
package), without a window. With a third argument MLflow is the one at that address: `sqlite:///FILE`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent / "pictures"
SIZE = {"width": 1440, "height": 900}
PATIENCE_MS, DRAWING_MS = 120_000, 4_000
PAGES = {
    "all trials": "mlflow-trials", "as a table": "mlflow-table", "the front by epoch": "mlflow-epochs",
    "what came of it": "mlflow-study",
}  # fmt: skip
WITHOUT_ASSISTANT = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""
"""On a first visit MLflow opens a chat, which takes a quarter of the page."""


@contextmanager
def served(run: Path, uri: str = "", port: int = 5000) -> Iterator[dict[str, str]]:
    """Serve a run by `ubt ui` for a while; yield the addresses that it names, by what they are."""
    code = "from sweeps.cli.start import main; main()"
    command = [sys.executable, "-u", "-c", code, "ui", str(run), "--no-open", "--port", str(port)]
    command += ["--uri", uri] if uri else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        named: dict[str, str] = {}
        try:
            for line in server.stdout or ():
                if found := re.fullmatch(r" +([a-z ]+): +(http://\S+)\n", line):
                    named[found[1]] = found[2]
                if len(named) == len(PAGES):
                    break
            yield named
        finally:
            server.terminate()  # it ends as by Ctrl-C, and MLflow with it


def photograph(page: Page, picture: Path) -> None:
    """Write what a page shows, once it is drawn."""
    page.wait_for_timeout(DRAWING_MS)
    with Image.open(BytesIO(page.screenshot())) as shown:
        shown.convert("RGB").save(picture, quality=70, method=6)


def take(run: Path, folder: Path, uri: str = "") -> None:
    """Take the picture of every page of a run, and of a trial's."""
    folder.mkdir(parents=True, exist_ok=True)
    with served(run, uri) as named, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(viewport=SIZE)
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(WITHOUT_ASSISTANT)
        for what, name in PAGES.items():
            page = context.new_page()
            page.goto(named[what], wait_until="domcontentloaded")
            page.locator(".js-plotly-plot, .ag-row a, .note-editor-preview-content").first.wait_for()
            if what == "all trials":
                page.locator(".parcoords svg").first.wait_for()  # drawn last, in the place of a turning wheel
            if what == "what came of it":
                page.get_by_role("button", name="Expand description").click()
            photograph(page, folder / f"{name}.webp")
            if what == "as a table":
                page.locator(".ag-row[row-index='0'] a").first.click()
                page.wait_for_url("**/runs/*")
                page.goto(f"{page.url.partition('?')[0]}?workflowType=machine_learning")
                page.get_by_text("test/asr", exact=True).first.wait_for()
                photograph(page, folder / "mlflow-trial.webp")
            page.close()
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]).absolute(), Path(sys.argv[2]) if sys.argv[2:] else HERE, *sys.argv[3:])
