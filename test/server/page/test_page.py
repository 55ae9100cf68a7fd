# SPDX-License-Identifier: Apache-2.0
"""The web page in a real browser, over a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.server_browser import chromium

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def open_page():
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def page(client, open_page):
    return open_page(client.url, viewport={"width": 1200, "height": 800})


def answer(page) -> str:
    page.wait_for_selector("#latency:visible")
    return page.inner_text("#answer")


def ask(page, question: str, choices: str = "") -> str:
    page.fill("#question", question)
    page.fill("#choices", choices)
    page.press("#question", "Enter")
    return answer(page)


def test_the_live_picture_is_asked_about(page) -> None:
    page.wait_for_selector("#picture[src^='blob:']")
    before = page.get_attribute("#picture", "src")
    page.wait_for_function("before => document.getElementById('picture').src !== before", arg=before)
    assert page.inner_text("#model").startswith("nano@")
    assert (
        ask(page, "What is in the image?")
        == "A white ball on the left and a green traffic light on the right."
    )
    assert float(page.inner_text("#sure-text")) > 0.5
    assert "encode" in page.inner_text("#split-text")


def test_choices_have_bars(page) -> None:
    assert ask(page, "Is there a green traffic light?", "yes, no") == "yes"
    bars = page.eval_on_selector_all(".bar", "rows => rows.map(row => row.innerText.split('\\n'))")
    assert [bar[0] for bar in bars] == ["yes", "no"]
    assert float(bars[0][1].removesuffix(" %")) > 90


def test_a_refusal_is_told(page) -> None:
    page.fill("#question", "Is it?")
    page.fill("#choices", "yes")
    page.press("#question", "Enter")
    page.wait_for_selector("#answer.failed")
    assert "only one choice was given" in page.inner_text("#answer")


def test_a_picture_of_ones_own(page) -> None:
    page.set_input_files("#file", ROOT / "docs" / "road.png")
    page.wait_for_selector("#picture[src^='data:']")
    assert ask(page, "What is on the left?") == "An orange cone is on the left."
    page.click("#live")
    page.wait_for_selector("#picture[src^='blob:']")


def test_keys_and_colours(page) -> None:
    page.click("h1")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    page.keyboard.press("t")
    assert page.evaluate(ground) != before
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "question"


def test_without_a_camera_and_on_a_phone_it_takes_pictures(serve, make_service, nano, open_page) -> None:
    with serve(make_service(nano)) as client:
        page = open_page(client.url, viewport={"width": 390, "height": 800})
        page.click("#sample")
        page.wait_for_selector("#picture[src^='data:']")
        assert ask(page, "What is on the left?") == "An orange cone is on the left."
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.close()


HIDE = """
window.hide = (hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
};
"""


def test_a_hidden_page_fetches_nothing(client, open_page) -> None:
    page = open_page(client.url, HIDE)
    page.wait_for_selector("#picture[src^='blob:']")
    page.evaluate("window.hide(true)")
    page.wait_for_timeout(1000)  # what was on its way has come
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.wait_for_timeout(1000)
    assert not seen
    with page.expect_request("**/api/frame*"):
        page.evaluate("window.hide(false)")
    page.close()


def test_a_token_is_asked_for_once(serve, make_service, nano, open_page) -> None:
    with serve(make_service(nano), token="sesame", local=False) as client:
        page = open_page(client.url)
        page.fill("#token", "sesame")
        page.press("#token", "Enter")
        page.wait_for_selector("#health.good")
        page.close()
