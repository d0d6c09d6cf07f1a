"""The report's page as a person uses it, in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from fakes import World, a_study, memory_ledger, resolved_of, search_through
from test_edges import by_rate
from test_edges import study as study_of
from test_measures_report import measured, study
from test_smoothing import SEEDS, files_of, finished, unmeasured
from test_temperature import finished as tempered

from kdsearch.agenda import Epoch, Outcome
from kdsearch.analysis import analyse
from kdsearch.report.figures import MANY
from kdsearch.report.page import page as page_of
from kdsearch.report.write import report_files

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished study of four cases, each with and without a teacher."""
    grammar = {"train": 20, "validation": 10, "test": 10}
    raw = a_study(
        datasets={"apples": {"grammar": grammar}, "pears": {"grammar": {**grammar, "seed": 1}}},
        models={
            "big": {"config": {"model_type": "bert", "num_hidden_layers": 4}},
            "small": {"config": {"model_type": "bert", "num_hidden_layers": 1}},
            "tiny": {"config": {"model_type": "bert", "hidden_size": 8}},
        },
        students={"small": {"model": "small"}, "tiny": {"model": "tiny"}},
        seeds=[0, 1],
        erm=True,
    )
    resolved = resolved_of(raw)
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1, coinciding=0))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page_of(analyse(agenda), agenda, {}))
    return path


def along(outcome: Outcome) -> Outcome:
    """The same, of two epochs, with a loss of its own."""
    loss = int(outcome.key[:6], 16) / 16**6
    epochs = tuple(
        Epoch(epoch=n, train_loss=loss / n, validation=outcome.validation, validation_loss=None)
        for n in (1, 2)
    )
    return outcome.model_copy(update={"epochs": epochs})


@pytest.fixture(scope="module")
def with_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study whose trainings have epochs."""
    return written(tmp_path_factory.mktemp("epochs"), report_files(*study(along)))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished study of as many cases as have deciles."""
    grammar = {"train": 20, "validation": 10, "test": 10}
    sets = {f"set {i}": {"grammar": {**grammar, "seed": i}} for i in range(MANY)}
    path = tmp_path_factory.mktemp("many") / "report.html"
    agenda = study_of(by_rate, datasets=sets)
    path.write_text(page_of(analyse(agenda), agenda, {}))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@contextmanager
def opened(
    browser: sync_api.Browser, page: Path, *, phone: bool = False
) -> Iterator[sync_api.Page]:
    """A page, open; at the end nothing was complained of, and nothing was asked of a network."""
    size = sync_api.ViewportSize(width=390 if phone else 1280, height=844)
    context = browser.new_context(viewport=size, color_scheme="dark" if phone else "light")
    found = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    found.on("console", lambda message: said.append(message.text))
    found.on("pageerror", lambda error: said.append(str(error)))
    found.on("request", lambda each: asked.append(each.url))
    found.goto(page.as_uri())
    yield found
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


@pytest.fixture
def page(browser: sync_api.Browser, report: Path) -> Iterator[sync_api.Page]:
    with opened(browser, report) as found:
        yield found


@pytest.fixture(params=["desktop, light", "phone, dark"])
def shown(
    request: pytest.FixtureRequest, browser: sync_api.Browser, report: Path
) -> Iterator[sync_api.Page]:
    """The page where it may look different."""
    with opened(browser, report, phone=request.param == "phone, dark") as found:
        yield found


def column(page: sync_api.Page, number: int) -> list[str]:
    return page.locator(f"#case-table tbody tr > :nth-child({number})").all_inner_texts()


def test_the_cases_sort_by_a_column_and_back(page: sync_api.Page) -> None:
    page.locator("#case-table").get_by_role("button", name="test", exact=True).click()
    rising = [float(text.split()[0]) for text in column(page, 3)]
    page.locator("#case-table").get_by_role("button", name="test", exact=True).click()
    falling = [float(text.split()[0]) for text in column(page, 3)]
    assert rising == sorted(rising)
    assert falling == rising[::-1]
    assert len(set(rising)) > 1


def test_the_filter_leaves_the_cases_that_fit(page: sync_api.Page) -> None:
    page.locator("#filter").fill("pears tiny")
    shown = page.locator("#case-table tbody tr:visible").all_inner_texts()
    assert len(shown) == 2  # with and without a teacher
    assert {"pears/big/tiny", "pears/tiny/erm"} == {row.split("\t")[0] for row in shown}
    assert page.locator("details[data-case]:visible").count() == 2
    assert page.locator("#shown").inner_text() == "2 of 8"


def test_the_papers_rows_can_be_switched_on(page: sync_api.Page) -> None:
    lanes = page.locator("#figure-2 .ytick", has_text="paper")
    assert lanes.count() == page.locator("tr.paper:visible").count() == 0
    page.get_by_label("show the paper’s rows").check()
    rows = page.evaluate("data.figures['figure-2'].rows.filter((row) => row.paper && row.n).length")
    assert lanes.count() == rows > 0
    assert page.locator("#figure-2 tr.paper:visible").count() >= rows


def test_few_cases_are_points_by_name_none_of_which_hides_another(shown: sync_api.Page) -> None:
    chart = shown.locator("#figure-1 .gains")
    gains = shown.evaluate("data.figures['figure-1'].rows.flatMap((row) => row.gains).length")
    points = chart.locator(".points path").all()
    boxes = [box for point in points if (box := point.bounding_box())]
    assert len(boxes) == chart.locator(".ytick").count() == gains > 4
    centres = sorted(box["y"] + box["height"] / 2 for box in boxes)
    assert all(below - above > 15 for above, below in pairwise(centres))


def test_the_legend_of_many_cases_lies_below_the_chart_and_within_it(
    browser: sync_api.Browser, many: Path
) -> None:
    with opened(browser, many, phone=True) as page:
        page.get_by_label("show the paper’s rows").check()
        for figure in ("figure-1", "figure-2"):
            chart = page.locator(f"#{figure} .gains")
            legend, title, whole = (
                each.bounding_box()
                for each in (chart.locator(".legend"), chart.locator(".xtitle"), chart)
            )
            assert legend is not None
            assert title is not None
            assert whole is not None
            assert title["y"] + title["height"] <= legend["y"]
            assert legend["x"] + legend["width"] <= whole["x"] + whole["width"]
            assert legend["y"] + legend["height"] <= whole["y"] + whole["height"]


def test_the_path_of_a_case_is_drawn_when_it_is_opened(page: sync_api.Page) -> None:
    case = page.locator("#case-0")
    assert case.locator("svg").count() == 0
    case.locator("summary").click()
    path = case.locator("[data-chart=path]")
    path.locator("svg .point").first.wait_for()
    # The default, and teacher, τ_s, distance and α after it; validation and test of each.
    assert path.locator(".point").count() in (8, 10)  # without τ_s under MSE only
    assert case.locator("[data-chart=temperature] .point").count() > 0
    assert case.locator("[data-chart=rate] .point").count() > 0


def test_a_link_to_a_case_opens_it(page: sync_api.Page) -> None:
    page.locator("#case-table a", has_text="pears/big/small").click()
    sync_api.expect(page.locator("details[data-case][open]")).to_have_count(1)
    assert "pears/big/small" in page.locator("details[data-case][open] summary").inner_text()


def test_nothing_is_wider_than_the_screen(shown: sync_api.Page) -> None:
    shown.locator("#case-1 summary").click()
    shown.locator("#case-1 [data-drawn]").first.wait_for()
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_text_follows_the_colour_scheme(shown: sync_api.Page) -> None:
    luminance = """() => {
      const rgb = (name) => getComputedStyle(document.body)[name].match(/[0-9]+/g).map(Number);
      const sum = (values) => values.slice(0, 3).reduce((a, b) => a + b);
      return [sum(rgb('color')), sum(rgb('backgroundColor'))];
    }"""
    text, back = shown.evaluate(luminance)
    dark = shown.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (text > back) == dark
    assert abs(text - back) > 450


def test_printing_shows_every_case(page: sync_api.Page) -> None:
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details[data-case][open]").count() == 8
    assert page.locator("#controls").is_hidden()


def test_charts_are_printed_in_black_and_fit_the_paper(shown: sync_api.Page) -> None:
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    chart = shown.locator(".gains .main-svg").first
    assert chart.evaluate("svg => svg.getBoundingClientRect().width") == 680
    text = shown.locator(".gains .xtick text").first
    assert text.evaluate("text => getComputedStyle(text).fill") == "rgb(0, 0, 0)"
    shown.evaluate("dispatchEvent(new Event('afterprint'))")
    dark = shown.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (text.evaluate("text => getComputedStyle(text).fill") != "rgb(0, 0, 0)") or not dark


def test_the_header_of_a_column_stands_as_its_cells_do(page: sync_api.Page) -> None:
    aligned = """table => [...table.tHead.rows[0].cells].map((head, i) =>
      [head, table.tBodies[0].rows[0].cells[i]].map((cell) => getComputedStyle(cell).textAlign))"""
    for table in page.locator("table:has(tbody tr)").all():
        for head, cell in table.evaluate(aligned):
            assert head == cell


def written(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "report.html"
    path.write_text(files["report/report.html"])
    return path


def test_the_measures_of_a_case_are_drawn_when_it_is_opened(
    browser: sync_api.Browser, tmp_path: Path
) -> None:
    with opened(browser, written(tmp_path, report_files(*study(measured)))) as page:
        case = page.locator("details[data-case]").first
        if not case.get_attribute("open"):
            case.evaluate("each => { each.open = true; }")
        case.locator("[data-chart=entropy] svg .point").first.wait_for()
        assert case.locator("[data-chart=entropy] .scatterlayer .trace").count() == 6
        # Two epochs of each of three runs; of agreement those of the taught student alone.
        counts = [
            each.locator(".point").count() for each in case.locator("[data-chart=measure]").all()
        ]
        assert sorted(counts) == [2, 6, 6]


def test_the_curves_of_label_smoothing_are_drawn_at_once(
    browser: sync_api.Browser, tmp_path: Path
) -> None:
    with opened(browser, written(tmp_path, files_of(finished()))) as page:
        small, big = page.locator("[data-smoothing]").all()
        # Of each method the curve of training, and that of its epochs on validation.
        assert small.locator(".scatterlayer .trace").count() == 2 * 4
        assert big.locator(".scatterlayer .trace").count() == 2 * 3
        title, legend = (small.locator(each).bounding_box() for each in (".xtitle", ".legend"))
        assert title is not None
        assert legend is not None
        assert small.locator(".xtitle").text_content() == "epoch"
        assert title["y"] + title["height"] <= legend["y"]


@pytest.mark.parametrize("phone", [False, True])
def test_the_verdicts_on_label_smoothing_are_seen_without_scrolling(
    browser: sync_api.Browser, tmp_path: Path, phone: bool
) -> None:
    files = files_of(finished(became=unmeasured("ls", SEEDS)))
    with opened(browser, written(tmp_path, files), phone=phone) as page:
        rows = page.locator("#smoothing table.wraps tr")
        headers = rows.first.locator("th").all_text_contents()
        assert headers[:4] == ["claim", "as chosen", "at equal rate and epochs", "paper"]
        texts = rows.locator("td:nth-child(-n+4)").all_text_contents()
        assert {"holds", "does not hold", "not measured"} <= {*texts}
        seen = page.locator("#smoothing .wide").first.bounding_box()
        paper = rows.first.locator("th:nth-child(4)").bounding_box()
        assert seen is not None
        assert paper is not None
        assert paper["x"] + paper["width"] <= seen["x"] + seen["width"]


@pytest.mark.parametrize("phone", [False, True])
def test_a_temperature_study_has_ticks_at_what_was_tried_and_its_verdicts_in_sight(
    browser: sync_api.Browser, tmp_path: Path, phone: bool
) -> None:
    agenda = tempered()
    files = report_files(memory_ledger(agenda.resolved), agenda)
    with opened(browser, written(tmp_path, files), phone=phone) as page:
        drawn = page.locator("[data-temperature=lines]").first
        drawn.scroll_into_view_if_needed()
        drawn.locator(".xtick").first.wait_for()
        assert drawn.locator(".xtick text").all_text_contents() == ["1", "2", "10"]
        title, legend = (drawn.locator(each).bounding_box() for each in (".xtitle", ".legend"))
        assert title is not None
        assert legend is not None
        assert title["y"] + title["height"] <= legend["y"]
        shades = page.locator("#temperature td.heat").evaluate_all(
            "cells => new Set(cells.map((each) => getComputedStyle(each).backgroundColor)).size"
        )
        assert shades > 2
        verdict = page.locator("#temperature table.wraps tr").nth(1).locator("td").first
        box, width = verdict.bounding_box(), page.evaluate("innerWidth")
        assert box is not None
        assert box["x"] + box["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_matters_of_a_case_is_seen_without_scrolling(shown: sync_api.Page) -> None:
    phone = shown.viewport_size["width"] == 390 if shown.viewport_size else False
    seen = (
        ["test case", "chosen", "test"]
        if phone
        else [
            *(
                "test case",
                "chosen",
                "test",
                "metric",
                "labels alone (ERM)",
                "points over ERM",
                "teacher",
                "verdict",
            )
        ]
    )
    right = "e => e.getBoundingClientRect().right"
    edge = shown.locator(".wide", has=shown.locator("#case-table")).evaluate(right)
    headers = shown.locator("#case-table thead th").all()
    found = [each.inner_text().strip() for each in headers if each.evaluate(right) <= edge + 0.5]
    assert seen == [name for name in found if name in seen]


def test_on_a_phone_the_answer_needs_no_scrolling_and_each_cell_has_its_header(
    browser: sync_api.Browser, report: Path
) -> None:
    with opened(browser, report, phone=True) as page:
        headers = page.locator("#answers thead th").all_text_contents()
        cells = page.locator("#answers tbody tr").first.locator("td")
        assert cells.evaluate_all("all => all.map((e) => e.dataset.label)") == headers[1:]
        assert cells.first.evaluate("e => getComputedStyle(e, '::before').content") != "none"
        for part in page.locator("#answer :is(.wide, pre)").all():
            assert part.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_an_axis_covers_the_error_bars(page: sync_api.Page) -> None:
    wide = [[0, 10, 30, 1, False], [0, -5, None, 1, False]]
    low, high = page.evaluate("rows => rangeOf(rows, [])", wide)
    assert low < -20
    assert high > 40


def test_a_colour_is_lighter_in_the_dark_and_as_it_was_on_paper(shown: sync_api.Page) -> None:
    dark = shown.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    blue = "() => onGround('#0072B2')"
    assert (shown.evaluate(blue) != "#0072B2") == dark
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert shown.evaluate(blue) == "#0072B2"


def test_the_labels_of_a_path_are_called_steps(page: sync_api.Page) -> None:
    page.locator("#case-0").evaluate("each => { each.open = true; }")
    path = page.locator("#case-0 [data-chart=path][data-drawn]")
    path.wait_for()
    labels = path.evaluate("e => e.data.flatMap((t) => t.text).filter(Boolean)")
    assert labels
    assert all(label.startswith("step ") for label in labels)


def test_the_charts_of_single_trainings_name_their_seed(page: sync_api.Page) -> None:
    assert page.evaluate("underSeed") == ", under seed 0"


def test_the_first_column_of_a_wide_table_stays_in_sight(
    browser: sync_api.Browser, report: Path
) -> None:
    with opened(browser, report, phone=True) as page:
        wide = page.locator(".wide", has=page.locator("#case-table"))
        left = "e => e.querySelector('tbody th').getBoundingClientRect().left"
        before = wide.evaluate(left)
        wide.evaluate("e => { e.scrollLeft = 150; }")
        assert wide.evaluate("e => e.scrollLeft") == 150
        assert wide.evaluate(left) == before
        assert wide.get_attribute("tabindex") == "0"


def test_a_table_that_fits_is_no_stop_of_the_tabulator(page: sync_api.Page) -> None:
    fits = "e => e.scrollWidth <= e.clientWidth"
    for wide in page.locator("section#run .wide").all():
        assert wide.evaluate(fits)
        assert wide.get_attribute("tabindex") is None


def test_a_term_in_a_table_is_explained_and_a_tap_shows_it(page: sync_api.Page) -> None:
    term = page.locator("#case-table td abbr", has_text="t_hs").first
    said = "The teacher as it was after the epoch of its highest validation score."
    assert term.get_attribute("title") == said
    assert page.locator("#term").is_hidden()
    term.click()
    assert page.locator("#term").inner_text() == f"t_hs: {said}"
    page.keyboard.press("Escape")
    assert page.locator("#term").is_hidden()


def test_the_keyboard_reaches_the_words_of_a_header_that_sorts(page: sync_api.Page) -> None:
    page.locator("#case-table").get_by_role("button", name="points over ERM").focus()
    assert page.locator("#term").inner_text().startswith("points over ERM: By how much")


def test_a_name_is_not_taken_for_a_term(browser: sync_api.Browser, tmp_path: Path) -> None:
    grammar = {"train": 20, "validation": 10, "test": 10}
    resolved = resolved_of(a_study(datasets={"random": {"grammar": grammar}}))
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1))
    path = tmp_path / "report.html"
    path.write_text(page_of(analyse(agenda), agenda, {}))
    with opened(browser, path) as page:
        assert page.locator("#figure-1 abbr", has_text="random").count() > 0
        assert page.locator(":is(#case-table, #answers, #run) abbr", has_text="random").count() == 0


LOOKS = """e => e.data.filter((t) => t.showlegend !== false)
  .map((t) => [t.name, t.line.color, t.marker.symbol, JSON.stringify([t.x, t.y])])"""


@pytest.mark.parametrize("chart", ["temperature", "rate", "epochs"])
def test_no_two_series_of_a_chart_look_alike_or_lie_on_one_another(
    browser: sync_api.Browser, with_epochs: Path, chart: str
) -> None:
    with opened(browser, with_epochs) as page:
        page.locator("#case-0").evaluate("each => { each.open = true; }")
        element = page.locator(f"#case-0 [data-chart={chart}][data-drawn]")
        element.wait_for()
        looks = element.evaluate(LOOKS)
        assert len(looks) > 1
        assert len({(colour, symbol) for _, colour, symbol, _ in looks}) == len(looks)
        points = element.evaluate("e => e.data.map((t) => JSON.stringify([t.x, t.y]))")
        assert len(set(points)) == len(points)
        for name, colour, _, _ in looks:
            assert (colour == "#D55E00") == (name == "labels alone (ERM)")
            assert (colour == "#0072B2") == name.startswith("chosen")


def test_losses_that_cannot_be_compared_share_no_axis(
    browser: sync_api.Browser, with_epochs: Path
) -> None:
    with opened(browser, with_epochs) as page:
        page.locator("#case-0").evaluate("each => { each.open = true; }")
        losses = page.locator("#case-0 [data-chart=loss][data-drawn]")
        losses.wait_for()
        axes = losses.evaluate("e => e.data.map((t) => [t.xaxis, t.yaxis].join())")
        assert len(axes) > 1
        assert len(set(axes)) == len(axes)


@pytest.mark.parametrize("phone", [False, True])
def test_a_legend_lies_below_the_labels_of_an_axis(
    browser: sync_api.Browser, with_epochs: Path, phone: bool
) -> None:
    with opened(browser, with_epochs, phone=phone) as page:
        page.locator("#case-0").evaluate("each => { each.open = true; }")
        page.locator("#case-0 [data-chart=epochs][data-drawn]").wait_for()
        charts = page.locator("#case-0 [data-drawn]:visible:has(.legend)").all()
        assert len(charts) > 2
        for chart in charts:
            labels = (each.bounding_box() for each in chart.locator(".xtick text").all())
            lowest = max(box["y"] + box["height"] for box in labels if box)
            legend = chart.locator(".legend").bounding_box()
            assert legend is not None
            assert lowest <= legend["y"] + 1


def test_generations_are_drawn_as_the_table_has_them(
    browser: sync_api.Browser, tmp_path: Path
) -> None:
    teachers = {"first": a_study()["teachers"]["big"], "second": {"student_of": "first"}}
    resolved = resolved_of(a_study(teachers=teachers))
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1))
    path = tmp_path / "report.html"
    path.write_text(page_of(analyse(agenda), agenda, {}))
    with opened(browser, path) as found:
        chart = found.locator("[data-generations]")
        assert chart.get_attribute("data-drawn") == "yes"
        (drawn,) = chart.evaluate("element => element.data.map(({x, text}) => [x, text])")
        cells = found.locator("#generations td:nth-child(5)").all_inner_texts()
        assert drawn == [[1, 2], cells]
