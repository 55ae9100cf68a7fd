# SPDX-License-Identifier: Apache-2.0
"""The web page over a real node: live picture, captions, monitors."""

from __future__ import annotations

import os

import pytest
from fixtures.server_browser import chromium

from mobilevlm_ros.server.services.node_service import NodeService

MONITORS = """
monitors:
  - {name: green_light, question: "Is there a green traffic light?", rate: 5.0, hold_time: 0.1}
  - {name: person, question: "Is there a person?", rate: 5.0, hold_time: 0.1}
"""


@pytest.fixture
def client(graph, node, serve, any_bundle, tmp_path):
    """Over a node of its own, which has monitors."""
    (tmp_path / "monitors.yaml").write_text(MONITORS)
    parameters = {
        "bundle": any_bundle,
        "threads": 1,
        "caption_rate": 2.0,
        "monitors_file": tmp_path / "monitors.yaml",
    }
    images = [f"{name}:=/{name}" for name in ("image", "image/compressed")]
    child = graph.start("mobilevlm_node", parameters, "__ns:=/watch", *images)
    with serve(NodeService("watch")) as made:
        graph.until(lambda: made.get("/healthz")[0] == 200, "the node's start")
        yield made
    child.stop()
    graph.children.remove(child)


def test_what_the_node_sees_is_shown(client, tmp_path) -> None:
    with chromium() as open_page:
        page = open_page(client.url, viewport={"width": 1200, "height": 860})
        page.wait_for_selector("#picture[src^='blob:']")
        option = page.wait_for_selector("#camera option", state="attached")
        assert option.text_content() == "default"
        page.wait_for_selector("[data-monitor=green_light].raised")
        page.wait_for_selector("[data-monitor=person].clear")
        assert "%" in page.inner_text("[data-monitor=green_light] .percent")
        page.wait_for_selector("#caption:visible")
        assert page.inner_text("#caption-text").startswith("A white ball")
        page.fill("#question", "Is there a ball?")
        page.fill("#choices", "yes, no, not sure")
        page.press("#question", "Enter")
        page.wait_for_selector("#latency:visible")
        assert page.inner_text("#answer") == "yes"
        page.wait_for_function(
            "() => document.querySelector('[data-monitor=person] polyline').points.numberOfItems > 12"
        )
        page.screenshot(path=os.environ.get("PAGE_SCREENSHOT", str(tmp_path / "page.png")))
