"""The page that draws losses, in headless Chromium: its numbers are those of Python, its controls and link work."""

import math
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

import lopsided
from lopsided.compute.javascript import DRAWN, controls
from lopsided.data.storage import UserError
from lopsided.losses import BALANCED, Formula, balanced, formula
from lopsided.losses.closed_form import decision_threshold, posterior
from lopsided.report.loss_page import write_loss_page
from tests import oracle
from tests.browser import chromium, show, spoken
from tests.nn.test_balanced import published

LOGITS = [step / 4 for step in range(-32, 33)]
POSITIVES, NEGATIVES = [1.0], [-2.0, -1.0, 0.0]  # beside the label, where labels of a row are coupled
EVALUATE = """
const [name, settings, logits, eta, weight, seen] = arguments;
const loss = lopsided.make(name, settings, weight, seen ?? undefined);
const sides = [true, false].map((side) => logits.map((z) => loss.cost(z, side)));
const threshold = loss.threshold?.(eta);
return [
    sides.map((side) => side.map((one) => one.value)), sides.map((side) => side.map((one) => one.gradient)),
    loss.posterior && logits.map(loss.posterior), Number.isFinite(threshold) ? threshold : String(threshold),
    loss.isRefused(),
];
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "losses.html"
    write_loss_page(path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as started:
        yield started


def drawn(name: str, count: int = 8) -> list[dict[str, Any]]:
    """Settings within what the page offers: its defaults, then drawn ones, of which many are absent or at an end."""
    draw = random.Random(name)
    found = [{each.name: each.default for each in controls(name)}]
    for _ in range(count if found[0] else 0):
        values: dict[str, Any] = {}
        for each in controls(name):
            if isinstance(each.default, bool):
                values[each.name] = draw.random() < 0.5
            elif each.length:
                coefficients = [draw.choice([0, 1, draw.uniform(-0.5, 3)]) for _ in range(draw.randint(1, each.length))]
                values[each.name] = draw.choice([None, coefficients])
            else:
                choices: list[float | None] = [each.low, each.high, *(draw.uniform(each.low, each.high) for _ in "abc")]
                if each.name == "clip":
                    choices[2:] = [0.005, 0.05, 0.25]
                values[each.name] = draw.choice([None, *choices] if each.default is None else choices)
        for each in controls(name):
            for replaced in each.replaces if values[each.name] else ():
                values.pop(replaced)
        found.append(values)
    return found


def costs(loss: Formula, positive: bool, weight: float) -> tuple[list[float], list[float]]:
    """What the page draws, by Python: value and gradient of a row at each logit of a label in it."""
    others = [] if loss.pool.per_label else POSITIVES + NEGATIVES
    z = torch.tensor([[each, *others] for each in LOGITS], dtype=torch.float64)
    truth = torch.tensor([float(positive), *(float(each in POSITIVES) for each in others)], dtype=torch.float64)
    weights = weight * truth.expand_as(z), 1 - truth.expand_as(z)
    state = loss.summarize(z, weights)
    return loss.value(state).tolist(), loss.grad(z, weights, state)[:, 0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", BALANCED)
def test_numbers_of_losses_from_counts_are_the_published_ones(browser: Chrome, page: Path, name: str) -> None:
    """The other label is in each row, at a logit where it costs nothing."""
    show(browser, page)
    z = torch.tensor([[each, 200.0] for each in LOGITS], dtype=torch.float64)
    told = (50, 500, 1000), (1, 999, 1000), (7, 2, 20), (900, 30, 100_000)
    for number, settings in enumerate(drawn(name)):
        count, other, rows = told[number % len(told)]
        eta, seen = (0.5, 0.2, 0.9)[number % 3], {"count": count, "other": other, "rows": rows}
        found = browser.execute_script(EVALUATE, name, settings, LOGITS, eta, 1, seen)
        spec = f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})"
        for side, positive in enumerate((1.0, 0.0)):
            y = torch.tensor([[positive, 1.0]] * len(z), dtype=torch.float64)
            costs = partial(published, spec, y=y, counts=(count, other), of_rows=rows)
            assert found[0][side] == pytest.approx(costs(z).tolist(), rel=1e-9, abs=1e-9), spec
            assert found[1][side] == pytest.approx(oracle.gradient(costs, z)[:, 0].tolist(), rel=1e-9, abs=1e-9), spec
        made = balanced(spec)
        if made.rebalancing is not None or made.margin:
            assert found[2:4] == [None, "undefined"], spec
            continue
        offset = -made.kappa * math.log(rows / count - 1)
        expected = posterior(made.formula, made.scale * (z[:, 0] + offset)).tolist()
        assert found[2] == pytest.approx(expected, abs=1e-9), spec
        settled = decision_threshold(made.formula, eta).item()
        assert found[3] == pytest.approx(settled / made.scale - offset, abs=1e-9), spec


def open_at(browser: Chrome, page: Path, link: str, dark: bool = False) -> None:
    """Opens a page on a phone as a link to it does, and not as one that is open already."""
    show(browser, page, width=360, dark=dark)
    browser.get("about:blank")
    browser.get(page.as_uri() + link)


@pytest.mark.slow
def test_how_often_a_label_is_positive_is_a_slider(browser: Chrome, page: Path) -> None:
    open_at(browser, page, "#loss=db&count=7&rows=300&gamma=0")
    spec = 'lopsided.BalancedLoss("db(gamma=0)", torch.tensor([7, 500]), rows=300)'
    assert text(browser, "spec") == spec
    assert "More positives than rows" in text(browser, "note")
    sliders = {each.accessible_name: each for each in fields(browser, "range")}
    sliders["of another label"].send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    count = sliders["positives of the label"]
    assert count.get_attribute("aria-valuetext") == "7"
    numbers = text(browser, "numbers")
    count.send_keys(Keys.ARROW_RIGHT)
    assert count.get_attribute("aria-valuetext") == "10"
    assert text(browser, "spec") == spec.replace("[7, 500]", "[10, 100]")
    assert text(browser, "numbers") != numbers
    assert text(browser, "note").startswith("The row has the other label. The cost depends on the truth of its row")
    assert "#loss=db&gamma=0&count=10&other=100&rows=300" in browser.current_url
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    sliders["training rows"].send_keys(Keys.END)
    assert text(browser, "spec").endswith("rows=1000000)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert [entry for entry in spoken(browser) if entry["level"] == "SEVERE"] == []
    lopsided.BalancedLoss("db(gamma=0)", torch.tensor([10, 100]), rows=300)  # as the page says


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DRAWN if name not in BALANCED])
def test_numbers_are_those_of_python(browser: Chrome, page: Path, name: str) -> None:
    show(browser, page)
    weighted = formula(name).pool.per_label or name == "zlpr"
    for number, settings in enumerate(drawn(name, 24 if name in ("apl", "splc") else 8)):
        eta, weight = (0.5, 0.2, 0.9)[number % 3], (1.0, 3.0, 0.4)[number // 2 % 3] if weighted else 1.0
        found = browser.execute_script(EVALUATE, name, settings, LOGITS, eta, weight)
        try:
            loss = formula(name, **settings)
            assert not found.pop(), settings
        except ValueError:
            assert found.pop(), settings
            loss = formula(name, **{**settings, "monotone": False})
        expected = [costs(loss, positive, weight) for positive in (True, False)]
        assert found[0] == [pytest.approx(values, rel=1e-9, abs=1e-9) for values, _ in expected], settings
        assert found[1] == [pytest.approx(slopes, rel=1e-9, abs=1e-9) for _, slopes in expected], settings
        try:
            threshold: Any = decision_threshold(loss, eta, weight).item()
        except ValueError:
            assert found[2:] == [None, "undefined"], settings
            continue
        except UserWarning:
            threshold = math.inf
        assert found[3] == ("Infinity" if threshold == math.inf else pytest.approx(threshold, abs=1e-9)), settings
        if loss.pool.per_label:
            assert found[2] == pytest.approx(posterior(loss, torch.tensor(LOGITS).double(), weight).tolist(), abs=1e-9)
        else:
            assert found[2] is None


def text(browser: Chrome, part: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).textContent", f"[data-part={part}]"))


@pytest.mark.slow
def test_keys_move_a_setting_and_the_link_holds_it(browser: Chrome, page: Path) -> None:
    show(browser, page)
    assert text(browser, "spec") == 'lopsided.loss("asl")'
    slider = browser.find_element(By.CSS_SELECTOR, "[data-part=settings] input[type=range]")
    assert slider.accessible_name.startswith("gamma_neg")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    flag = browser.find_elements(By.CSS_SELECTOR, "[data-part=settings] input[type=checkbox]")[1]
    flag.send_keys(Keys.SPACE)
    assert text(browser, "spec") == 'lopsided.loss("asl(gamma_neg=4.1, alpha=0.25)")'
    link, numbers = browser.current_url, text(browser, "numbers")
    browser.get("about:blank")
    browser.get(link)
    assert text(browser, "spec") == 'lopsided.loss("asl(gamma_neg=4.1, alpha=0.25)")'
    assert text(browser, "numbers") == numbers
    browser.find_element(By.CSS_SELECTOR, "[data-part=reset]").send_keys(Keys.ENTER)
    assert text(browser, "spec") == 'lopsided.loss("asl")'
    assert text(browser, "numbers") != numbers


@pytest.mark.slow
def test_a_list_is_typed_and_takes_the_place_of_epsilons(browser: Chrome, page: Path) -> None:
    open_at(browser, page, "#loss=apl&epsilon_pos=0.5&betas=(1,)&pos_weight=3")
    spec = 'lopsided.loss("apl(epsilon_pos=0.5, betas=(1,))", pos_weight=torch.full((L,), 3))'
    assert text(browser, "spec") == spec
    (field,) = (each for each in fields(browser, "text") if each.accessible_name.startswith("alphas"))
    field.send_keys("2, 0.4, x")  # the last sign changes nothing
    assert field.get_attribute("aria-invalid") == "true"
    field.send_keys(Keys.BACKSPACE, "0")
    assert field.get_attribute("aria-invalid") == "false"
    assert text(browser, "spec") == spec.replace("epsilon_pos=0.5", "alphas=(2, 0.4, 0)")
    assert "alphas=(2,0.4,0)&betas=(1,)&pos_weight=3" in browser.current_url
    assert "epsilon_pos" not in {each.accessible_name for each in fields(browser, "range") if each.is_displayed()}
    assert text(browser, "note") == ""
    field.clear()
    field.send_keys("-1")
    assert "pushed the wrong way" in text(browser, "note")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (f"apl(alphas=({'1,' * 9}))", "8 alphas at most, got 9"),
        ("asl(gamma_neg=20)", "the page draws gamma_neg from 0 to 8, got 20"),
        ("splc(tau=0.3)", "the page draws tau from 0.5 to 1, got 0.3"),
    ],
)
def test_what_it_does_not_draw_is_refused(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_loss_page(tmp_path / "page.html", formula(spec))


@pytest.mark.parametrize("name", DRAWN)
def test_sliders_come_back_to_the_default(name: str) -> None:
    """A browser moves a slider by whole steps from its low end."""
    for each in controls(name):
        if isinstance(each.default, float):
            assert each.low <= each.default <= each.high
            assert (each.default - each.low) / each.step == pytest.approx(round((each.default - each.low) / each.step))


def fields(browser: Chrome, kind: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, f"[data-part=settings] input[type={kind}]")


@pytest.mark.slow
def test_it_opens_at_the_loss_that_was_named(browser: Chrome, tmp_path: Path) -> None:
    for spec, shown in (("zlpr(scale=2)", "zlpr(scale=2)"), ("asl_optimized", "asl(gamma_pos=1, detach_focus=False)")):
        write_loss_page(tmp_path / "one.html", formula(spec))
        show(browser, tmp_path / "one.html")
        assert text(browser, "spec") == f'lopsided.loss("{shown}")'


@pytest.mark.slow
@pytest.mark.parametrize(
    "link",
    [
        "",
        "#loss=__proto__",
        "#loss=hill&gamma=1e9&z=x&eta=",
        "#a-heading",
        "#loss=zlpr",
        "#loss=apl&alphas=1,x",
        "#loss=lsep&pos_weight=5",
    ],
)
def test_it_opens_at_any_link_and_fits_a_phone(browser: Chrome, page: Path, link: str) -> None:
    open_at(browser, page, link, dark=link == "")
    assert [entry for entry in spoken(browser) if entry["level"] == "SEVERE"] == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    name = next((name for name in ("hill(gamma=4)", "zlpr", "apl", "lsep") if name[:4] in link), "asl")
    assert text(browser, "spec") == f'lopsided.loss("{name}")'
    assert len(browser.find_elements(By.CSS_SELECTOR, "figure div > svg > svg")) == 3
    assert "NaN" not in str(browser.execute_script("return document.querySelector('.panels').innerHTML"))
