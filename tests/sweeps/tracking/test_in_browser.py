"""MLflow's pages of a study as somebody sees them who opens what `ubt ui` prints: in Chromium, clicked through."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsed import DONE, lay_out

from sweeps.tracking import Tracker, TrackingSettings

playwright = pytest.importorskip("playwright.sync_api")
Page, expect = playwright.Page, playwright.expect

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 120_000
"""On a busy machine; only a failure takes it."""
OF_MLFLOW = "/mlflow/users/current"
"""What MLflow's pages ask a server that has no users for."""
UNSIZED = re.compile(r"Error: <\w+> attribute [\w-]+: ")
"""What Chromium says of MLflow's parallel coordinates, which are at times drawn once before they have a size. They are
drawn again then: that nothing of it is left is looked at where the chart is."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` here (Debian's package of that name)"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, tiny_run, empty_database: Path) -> Iterator[dict[str, str]]:
    """The addresses that `ubt ui` prints, by what they are, of a study whose folder was moved after its sweep."""
    root = tmp_path_factory.mktemp("site")
    folder = root / "runs" / "browsed"
    lay_out(folder, tiny_run.record, tiny_run.root)
    shutil.copy(empty_database, root / "runs" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["/venv/bin/ubt", "sweep", "browsed.yaml"])
        tracker = Tracker(TrackingSettings(), folder)
        tracker.started()
    tracker.finished(complete=True)
    assert tracker.close(PATIENCE_MS / 1000).runs == 0
    moved = (root / "runs").rename(root / "moved")
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sweeps.cli.start import main\nmain()"
    )
    command = [sys.executable, "-u", "-c", code, "ui", str(moved / "browsed"), "--no-open", "--port", str(_free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        named: dict[str, str] = {}
        try:
            said = []
            for line in server.stdout or ():
                said.append(line)
                if found := re.fullmatch(r" +([a-z ]+): +(http://\S+)\n", line):
                    named[found[1]] = found[2]
                if len(named) == 4:
                    break
            assert len(named) == 4, "".join(said)
            yield named
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.BrowserContext]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = started.new_context(viewport={"width": 1440, "height": 1000})
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield context
        started.close()


@pytest.fixture
def page(browser: playwright.BrowserContext) -> Iterator[Page]:
    """A page of its own, on which nothing goes wrong, and which asks nothing of the network."""
    opened, wrong = browser.new_page(), list[str]()
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: _is_wrong(said) and wrong.append(said.text))
    opened.on("request", lambda asked: _is_foreign(asked.url) and wrong.append(f"asks for {asked.url}"))
    yield opened
    opened.close()
    assert not wrong


def _is_wrong(said: playwright.ConsoleMessage) -> bool:
    of_mlflow = OF_MLFLOW in said.location["url"] or UNSIZED.match(said.text)
    return said.type == "error" and not of_mlflow


def _is_foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def test_the_prepared_view_has_a_point_for_each_trial(page: Page, pages: dict[str, str]) -> None:
    page.goto(pages["all trials"], wait_until="domcontentloaded")
    expect(page.get_by_text(f"{DONE + 2} matching runs")).to_be_visible()
    drawn = "[...document.querySelectorAll('.js-plotly-plot')].flatMap(d => d.data || [])"
    points = f"{drawn}.filter(t => t.mode == 'markers').map(t => t.x.length)"
    page.wait_for_function(f"{points}.length >= 3")  # the rates, and two contours over the first two settings
    assert page.evaluate(points) == [DONE] * 3
    expect(page.locator(".parcoords svg .dimension")).to_have_count(4)  # two settings and both rates
    expect(page.locator(".parcoords svg").locator("[transform*=NaN], [d*=NaN], [height^='-']")).to_have_count(0)


def test_trials_are_sorted_and_filtered(page: Page, pages: dict[str, str]) -> None:
    page.goto(pages["as a table"], wait_until="domcontentloaded")
    first = page.locator(".ag-row[row-index='0'] a").first
    expect(first).to_contain_text(f"t{DONE - 1:04d} ")  # lowest ASR
    for column in ("test/asr", "test/ca", "val/asr", "val/ca"):
        expect(page.locator(".ag-header-cell-text, .ag-header").get_by_text(column, exact=True).first).to_be_attached()
    page.locator(".ag-header-cell").get_by_text("test/ca", exact=True).click()
    expect(first).to_contain_text("t0000 ")  # highest CA: one click on a column sorts by it, falling
    search = page.get_by_placeholder(re.compile("metrics"))
    search.fill(f"{search.input_value()} AND tags.state = 'FAILED'")
    search.press("Enter")
    expect(page.get_by_text("1 matching run")).to_be_visible()
    expect(first).to_contain_text(f"t{DONE:04d} ")


def test_the_front_is_shown_by_epoch_from_the_poisoned_model_on(page: Page, pages: dict[str, str]) -> None:
    """How ASR fell by epoch: no click."""
    page.goto(pages["the front by epoch"], wait_until="domcontentloaded")
    expect(page.get_by_text(f"{DONE} matching runs")).to_be_visible()
    plots = "[...document.querySelectorAll('.js-plotly-plot')].map(d => d.data || [])"
    lines = f"{plots}.map(of => of.filter(t => t.mode == 'lines+markers').map(t => [...t.x]))"
    page.wait_for_function(f"{lines}.slice(0, 2).every(of => of.length == {DONE})")
    assert page.evaluate(lines)[:2] == [[[0, 1, 2]] * DONE] * 2


def test_the_study_answers_what_is_asked_of_it_within_three_clicks(page: Page, pages: dict[str, str]) -> None:
    page.goto(pages["what came of it"], wait_until="domcontentloaded")
    expect(page.get_by_role("heading", name="Attack success falls from 95.0% to 5.9%")).to_be_visible()  # no click
    assert "ubt sweep browsed.yaml" in _text_of(page, "ubt sweep browsed.yaml")  # which command
    assert "scenes train" in _text_of(page, "scenes train")  # which data
    page.get_by_role("button", name="Expand description").click()
    note = page.locator(".note-editor-preview-content")
    expect(note).to_contain_text("Chosen settings: suspicious_ratio = 0.1, unlearn_samples = 24")  # one click
    expect(note.get_by_role("table").nth(1)).to_contain_text(f"t{DONE - 1:04d} chosen")  # the front
    expect(note).to_contain_text("MemoryError: 7 GB were asked for")  # why a trial failed
    assert note.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") > 500
    _assert_accessible(page, ".note-editor-preview-content")
    with page.context.expect_page() as opened:
        note.get_by_role("link", name="The cleaned model").click()
    expect(opened.value.get_by_text("model.safetensors")).to_be_visible()  # where the cleaned model is: two clicks
    opened.value.close()
    with page.context.expect_page() as opened:
        note.get_by_role("link", name=f"t{DONE:04d}", exact=True).click()
    expect(opened.value.get_by_text("Failed", exact=False).first).to_be_visible()
    expect(opened.value.locator(".note-editor-preview-content")).to_contain_text("MemoryError: 7 GB were asked for")
    opened.value.close()


def _text_of(page: Page, text: str) -> str:
    found = page.get_by_text(text).first
    expect(found).to_be_visible()
    return found.inner_text()


def _assert_accessible(page: Page, part: str) -> None:
    """Have axe-core find nothing serious in a part of the page."""
    from axe_playwright_python.sync_playwright import Axe

    # MLflow takes the alternative text from pictures; what this one shows is in the table below it.
    found = Axe().run(page, context=part, options={"rules": {"image-alt": {"enabled": False}}})
    serious = [one for one in found.response["violations"] if one["impact"] in {"serious", "critical"}]
    assert not serious, [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in serious]
