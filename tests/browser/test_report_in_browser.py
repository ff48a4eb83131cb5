"""The report as a browser shows it: its scripts run, nothing is asked of the network, tables and figures work together.

Needs Chromium (Debian's `chromium`; $UBT_CHROMIUM names another): skipped where there is none.
"""

import os
import shutil
from collections.abc import Iterator

import pytest

from analysis import write_report
from analysis.formatting import percent, tenths
from sweeps.watching.look import Watched
from sweeps.watching.server import Pages, serve
from ubt.trials.record import State, read_record, write_record

CHROMIUM = os.environ.get("UBT_CHROMIUM") or shutil.which("chromium") or ""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="there is no chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """One browser for all tests of this file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser):
    """Opens a page, and says at the end that it has logged no error and asked nothing of the network."""
    contexts, faults = [], []

    def note(request):
        if not request.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:")):
            faults.append(f"asked for {request.url}")

    def open_page(address, width=1440, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type in {"error", "warning"} and faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", note)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def reports(made_run, tmp_path_factory):
    """Kind → the address of a report of that kind, with five seeds each but for the search."""
    folder = tmp_path_factory.mktemp("runs")
    shapes = {"search": {"trials": 120}, "ablation": {"seeds": 5}, "comparison": {"seeds": 5}}
    return {
        kind: write_report(made_run(folder / kind, kind=kind, **shape)).page.as_uri() for kind, shape in shapes.items()
    }


def drawn(page):
    """Wait until scripts have run, and draw every figure, as printing does."""
    page.locator(".tabulator-row").first.wait_for()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.locator(".plot.js-plotly-plot").last.wait_for()
    return page


@pytest.mark.parametrize("kind", ["search", "ablation", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_has_no_serious_fault_of_accessibility(opened, reports, kind, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = drawn(opened(reports[kind], color_scheme=scheme, bypass_csp=True))
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in {"serious", "critical"}]
    assert {one["id"]: [node["html"][:200] for node in one["nodes"][:3]] for one in serious} == {}


@pytest.mark.parametrize("kind", ["search", "ablation", "comparison"])
@pytest.mark.parametrize("width", [800, 1440])
def test_nothing_is_wider_than_the_window(opened, reports, kind, width):
    page = drawn(opened(reports[kind], width))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_front_has_its_test_columns_in_a_narrow_window(opened, reports):
    page = opened(reports["search"], 800)
    scroll = page.locator("#front-table .scroll")
    heading = page.get_by_role("columnheader", name="test CA").first
    box, inside = heading.bounding_box(), scroll.bounding_box()
    assert box["x"] + box["width"] <= inside["x"] + inside["width"]


def cells(page, field):
    return page.locator(f".tabulator-row .tabulator-cell[tabulator-field='{field}']").all_inner_texts()


def test_trials_are_searched_filtered_and_sorted(opened, reports):
    page = drawn(opened(reports["search"]))
    page.get_by_label("search the trials").fill("failed")
    page.get_by_text("2 of 120 trials").wait_for()
    assert set(cells(page, "c1")) == {"failed"}
    page.get_by_label("search the trials").fill("")
    page.get_by_role("button", name="filters").click()
    page.get_by_label("filter val ASR").press_sequentially("<15")
    page.locator(".tools output", has_text=" of 120 trials").wait_for()
    rates = [float(text.rstrip("%")) for text in cells(page, "c4")]
    assert rates
    assert max(rates) < 15
    heading = page.locator(".tabulator-col[tabulator-field='c4'] .tabulator-col-title")
    heading.click()
    page.locator(".tabulator-col[tabulator-field='c4'][aria-sort='ascending']").wait_for()
    rates = [float(text.rstrip("%")) for text in cells(page, "c4")]
    assert rates == sorted(rates)


def test_scripts_round_a_rate_as_the_rest_of_the_page_does(opened, reports):
    rates = [hits / images for images in (480, 1100, 1200, 50_000) for hits in range(images)]
    shown = drawn(opened(reports["search"])).evaluate("rates => rates.map(FORMATS.percent)", rates)
    assert shown == [percent(rate) for rate in rates]
    assert [f"{tenths(rate) / 10:.1f}%" for rate in rates] == shown


def test_columns_are_chosen(opened, reports):
    page = drawn(opened(reports["search"]))
    page.locator(".menu summary").click()
    page.get_by_role("checkbox", name="select purity").check()
    page.locator(".tabulator-col-title", has_text="select purity").wait_for()


def test_a_trial_that_is_clicked_is_shown_whole_and_ringed_in_figures(opened, reports):
    page = drawn(opened(reports["search"]))
    page.get_by_label("search the trials").fill("t0012")
    page.locator(".tabulator-row").first.click()
    drawer = page.get_by_label("the selected trial")
    drawer.get_by_role("heading", name="t0012").wait_for()
    for words in ("Epoch by epoch", "Class by class", "poisoned model, test", "unlearn"):
        assert drawer.get_by_text(words).count()
    rings = (
        "[...document.querySelectorAll('main .js-plotly-plot')].map((p) => p.data.filter((t) => t.meta?.ring).length)"
    )
    assert page.evaluate(rings)[:3] == [1, 4, 2]
    page.keyboard.press("Escape")
    assert not drawer.is_visible()
    assert set(page.evaluate(rings)) == {0}


def test_a_dot_that_is_clicked_selects_its_trial_in_the_table(opened, reports):
    page = drawn(opened(reports["search"]))
    dot = page.locator("#front .scatterlayer .trace .point").nth(60)
    dot.scroll_into_view_if_needed()
    dot.click(force=True)
    name = page.locator(".drawer h2").inner_text()
    page.locator(".tabulator-row.tabulator-selected", has_text=name.split()[0]).wait_for()


def test_a_table_is_copied_as_latex_markdown_and_csv(opened, reports):
    page = drawn(opened(reports["ablation"], permissions=["clipboard-read", "clipboard-write"]))
    tools = page.locator("#effects .tools").first
    for name, begins in (("LaTeX", "\\begin{tabular}"), ("Markdown", "| change |"), ("CSV", "change,")):
        tools.get_by_role("button", name=f"copy the table as {name}").click()
        tools.get_by_text("copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()").startswith(begins)
        tools.get_by_text("copied").wait_for(state="detached")


@pytest.mark.parametrize(("format_", "begins"), [("SVG", b"<svg"), ("PNG", b"\x89PNG")])
def test_a_figure_is_saved_from_the_page(opened, reports, tmp_path, format_, begins):
    page = drawn(opened(reports["search"]))
    button = page.locator("#pairs").get_by_role("button", name=f"save the figure as {format_}")
    with page.expect_download() as saved:
        button.click()
    assert saved.value.suggested_filename == f"pairs.{format_.lower()}"
    saved.value.save_as(tmp_path / "figure")
    content = (tmp_path / "figure").read_bytes()
    assert content.startswith(begins)
    assert len(content) > 5000


def test_on_paper_all_trials_stand_in_the_light(opened, reports):
    page = drawn(opened(reports["search"], color_scheme="dark"))
    page.emulate_media(media="print")
    assert page.locator(".printed tbody tr").count() == 120
    assert page.locator(".printed").is_visible()
    assert not page.locator(".grid").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_an_ablation_begins_with_its_base_and_shows_its_seeds(opened, reports):
    page = drawn(opened(reports["ablation"]))
    assert "base" in page.locator("#effects tbody tr").first.inner_text()
    assert page.locator("#components .scatterlayer .trace").count() == 4
    assert not page.locator("#knobs, #pairs, #parallel, #growth").count()


def test_a_comparison_is_sorted_by_any_attack_and_has_no_front(opened, reports):
    page = drawn(opened(reports["comparison"]))
    assert not page.locator("#front-table, #knobs").count()
    page.get_by_role("button", name="BadNets").click()
    first = page.locator("table.compared tbody tr").first
    assert first.inner_text().startswith("UBT")


def test_a_page_that_is_served_follows_its_sweep(opened, made_run, tmp_path):
    run = made_run(tmp_path / "run", trials=8, running=2)
    watched, pages = Watched(str(run)), Pages(clock=lambda: 0.0)
    pages.take(watched.look())
    server = serve(pages, 0)
    try:
        page = opened(f"http://127.0.0.1:{server.server_address[1]}/")
        page.locator(".live", has_text="6 trials").wait_for()
        record = read_record(run / "records" / "t0006.json")
        ended = record.model_copy(update={"state": State.FAILED, "reason": "the disk was full"})
        write_record(run / "records", ended)
        pages.take(watched.look())
        page.locator(".live", has_text="7 trials").wait_for()
        page.locator("#unfinished", has_text="the disk was full").wait_for()
    finally:
        server.shutdown()
