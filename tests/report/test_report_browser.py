"""The report in headless Chromium: what a reader sees and can do, whatever the labels and texts hold."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from lopsided.__main__ import main
from lopsided.report.html import write_report
from lopsided.report.svg import SERIES
from tests.browser import chromium, show, spoken
from tests.tools import HOSTILE


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def hostile(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of hostile labels and texts, and of a loss whose name became hostile in the files."""
    run = tmp_path_factory.mktemp("hostile") / "run"
    shutil.copytree(texts, run, ignore=shutil.ignore_patterns("runs"))
    for path in {*run.glob("*.json"), *run.glob("*.csv")} - {run / "config.json"}:  # which is refused with such a loss
        path.write_text(re.sub(r"\basl\b(?![(_])", "asl<script>alert(4)</script>", path.read_text()))
    return write_report(run)


def contents(browser: Chrome, selector: str) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector
    )
    return found


def severe(browser: Chrome) -> list[Any]:
    return [entry for entry in spoken(browser) if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_opens_without_errors_and_asks_for_nothing(browser: Chrome, finished: Path, dark: bool) -> None:
    show(browser, finished / "report.html", dark=dark)
    assert severe(browser) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.find_element(By.TAG_NAME, "h1").is_displayed()
    assert len(contents(browser, "figure svg")) >= 14


def test_hostile_names_show_as_text(browser: Chrome, hostile: Path) -> None:
    show(browser, hostile)
    assert severe(browser) == []
    with pytest.raises(NoAlertPresentException):
        _ = browser.switch_to.alert
    assert set(contents(browser, "#label-table tbody th")) == set(HOSTILE)
    assert set(contents(browser, "#rows .tag")) <= set(HOSTILE)
    quoted = contents(browser, "#rows blockquote")
    assert quoted
    assert all(any(text.startswith(name) for name in HOSTILE) and "</bdi></textarea>" in text for text in quoted)
    assert "asl<script>alert(4)</script>" in contents(browser, ".legend li")
    assert any(text.startswith("asl<script>") for text in contents(browser, "svg text"))
    assert len(contents(browser, "script")) == 1
    assert contents(browser, "img") == []


def test_the_policy_refuses_a_script_that_got_in(browser: Chrome, hostile: Path) -> None:
    """The second wall, should the first have a hole."""
    show(browser, hostile)
    inject = """
        const script = document.createElement("script");
        script.textContent = "window.broken = 1";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<img src=data:x onerror='window.broken = 2'>");
    """
    browser.execute_script(inject)
    browser.execute_async_script("setTimeout(arguments[0], 100)")
    assert browser.execute_script("return window.broken ?? null") is None
    assert any("Content Security Policy" in entry["message"] for entry in severe(browser))


def column(browser: Chrome, number: int) -> list[str]:
    return contents(browser, f"#label-table tbody tr > :nth-child({number})")


def test_columns_sort_by_click_and_by_keyboard(browser: Chrome, finished: Path) -> None:
    show(browser, finished / "report.html")
    names = column(browser, 1)
    header = browser.find_element(By.CSS_SELECTOR, "#label-table [data-column='3']")
    button = header.find_element(By.TAG_NAME, "button")
    assert header.get_attribute("aria-sort") is None
    known = sorted(float(text) for text in column(browser, 4) if text != "-")
    undefined = ["-"] * (90 - len(known))
    assert known[0] < known[-1]
    button.click()
    assert column(browser, 4) == [f"{value:.3f}".removeprefix("0") for value in reversed(known)] + undefined
    assert header.get_attribute("aria-sort") == "descending"
    button.send_keys(Keys.ENTER)
    assert column(browser, 4) == [f"{value:.3f}".removeprefix("0") for value in known] + undefined
    assert header.get_attribute("aria-sort") == "ascending"
    assert len(contents(browser, "#label-table [aria-sort]")) == 1
    browser.find_element(By.CSS_SELECTOR, "#label-table [data-column='0'] button").send_keys(Keys.SPACE)
    assert column(browser, 1) == sorted(names)


def test_the_search_filters_the_labels(browser: Chrome, finished: Path) -> None:
    show(browser, finished / "report.html")
    field = browser.find_element(By.CSS_SELECTOR, "input[type=search]")
    assert field.accessible_name == "Search labels"
    field.send_keys("TOP left")
    shown = contents(browser, "#label-table tbody tr:not([hidden]) th")
    assert sorted(shown) == [f"{digit} top left" for digit in range(10)]
    hidden = browser.find_element(By.CSS_SELECTOR, "#label-table tbody tr[hidden]")
    assert not hidden.is_displayed()
    assert contents(browser, "[role=status]") == ["10 of 90 rows"]
    field.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    assert contents(browser, "#label-table tbody tr[hidden]") == []


def test_everything_is_reached_by_the_tab_key(browser: Chrome, finished: Path) -> None:
    show(browser, finished / "report.html")
    reached: list[list[str]] = []
    while not reached or reached[-1][0] != "BODY":  # after the last one focus leaves the page
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(
            browser.execute_script(
                "const e = document.activeElement;"
                "return [e.tagName, e.textContent.trim(), getComputedStyle(e).outlineStyle, e.getAttribute('role')]"
            )
        )
    reached.pop()
    tags = [tag for tag, *_ in reached]
    assert {
        "Results",
        "Where it matters",
        "Methods",
        "Training",
        "Decisions",
        "Calibration",
        "Labels",
        "Rows",
        "Settings",
    } <= {text for tag, text, *_ in reached if tag == "A"}
    assert "INPUT" in tags
    assert {"label", "train", "test"} <= {text for tag, text, *_ in reached if tag == "BUTTON"}
    assert [role for tag, *_, role in reached if tag == "DIV"].count("region") >= 3, "wide tables scroll by keyboard"
    assert {outline for *_, outline, _ in reached} == {"solid"}, "the focus is seen everywhere"


@pytest.mark.slow
@pytest.mark.parametrize("which", ["finished", "hostile"])
def test_a_phone_needs_no_sideways_scrolling(browser: Chrome, which: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(which)
    show(browser, path if path.suffix == ".html" else path / "report.html", width=390)
    width, window = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= window == 390
    ends = browser.execute_script(
        """
        const seen = document.querySelectorAll("h1, #results table.compact th[scope=row], #results .verdict");
        return [...seen].map((one) => one.getBoundingClientRect().right);
        """
    )
    assert len(ends) >= 1 + 2 * 3, "the answer, and a row with a verdict for each loss"
    assert max(ends) <= 390
    too_small = browser.execute_script(
        """
        const small = (one) => one.offsetParent && parseFloat(getComputedStyle(one).fontSize) < 12;
        const all = [...document.querySelectorAll("p, li, figcaption, th, td, dd")];
        return all.filter(small).map((one) => one.outerHTML);
        """
    )
    assert too_small == []


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of rgb(r, g, b)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_are_readable(browser: Chrome, finished: Path, dark: bool) -> None:
    show(browser, finished / "report.html", dark=dark)
    colours = browser.execute_script(
        """
        const style = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
        return {
          page: style("body", "backgroundColor"),
          text: [style("h1", "color"), style(".note", "color"), style("nav a", "color"), style("svg text", "fill")],
          series: [...Array(arguments[0]).keys()].map((number) => {
            const chip = document.querySelector(".legend .chip");
            chip.style.background = `var(--series-${number})`;
            return getComputedStyle(chip).backgroundColor;
          }),
        };
        """,
        len(SERIES),
    )
    assert (luminance(colours["page"]) < 0.05) == dark
    assert min(contrast(colour, colours["page"]) for colour in colours["text"]) >= 4.5
    assert len(set(colours["series"])) == len(SERIES)
    assert min(contrast(colour, colours["page"]) for colour in colours["series"]) >= 3


def test_paper_is_white_and_shows_the_whole_table(browser: Chrome, finished: Path) -> None:
    show(browser, finished / "report.html", dark=True, media="print")
    assert luminance(browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")) == 1
    assert not browser.find_element(By.TAG_NAME, "nav").is_displayed()
    table = browser.find_element(By.CSS_SELECTOR, "#labels .scroll")
    assert table.value_of_css_property("max-height") == "none"
    assert table.value_of_css_property("overflow") == "visible"


def test_without_scripts_the_table_is_plain(browser: Chrome, finished: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, finished / "report.html")
        assert len(browser.find_elements(By.CSS_SELECTOR, "#label-table tbody tr")) == 90
        assert browser.find_elements(By.CSS_SELECTOR, "#label-table button") == []
        assert browser.find_element(By.CSS_SELECTOR, ".search").get_attribute("hidden") is not None
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_merged_page_opens_without_errors(browser: Chrome, finished: Path, texts: Path, folder: Path) -> None:
    shutil.copytree(texts, folder / "other")
    config = json.loads((texts / "config.json").read_text())
    config["config"]["data"] = "/elsewhere/<b>texts.jsonl"
    (folder / "other/config.json").write_text(json.dumps(config))
    assert main(["report", str(finished), "other", "--out", "all.html"]) == 0
    show(browser, folder / "all.html", width=390)
    assert severe(browser) == []
    assert "<b>texts.jsonl" in contents(browser, "#results th")
    width, window = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= window
