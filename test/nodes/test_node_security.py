# SPDX-License-Identifier: Apache-2.0
"""config/security/policy.xml names what the processes really have in the graph: no less, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any
from xml.etree import ElementTree

import pytest
from fixtures.graph import LIMIT
from rclpy.action import graph as action_graph

from mobilevlm_ros.client import AskImageClient, AsyncAskImageClient

POLICY = Path(__file__).parents[2] / "config" / "security" / "policy.xml"
NAMESPACES = ("/policed", "/policed_too")
CAMERAS = ("", "front", "rear")
GLOBAL = {"/clock", "/diagnostics", "/parameter_events", "/rosout"}
Names = dict[str, set[str]]
ROLES = ("publish", "subscribe", "reply", "request", "execute", "call")


def allowed(node: str) -> Names:
    """What the policy lets a node do, by role."""
    found: Names = {role: set() for role in ROLES}
    profile = ElementTree.parse(POLICY).find(f".//profile[@node='{node}']")
    assert profile is not None
    for rule in profile:
        for role in rule.attrib:
            found[role] |= {str(entry.text) for entry in rule}
    return found


def live(asker: Any, node: str, namespace: str) -> Names:
    """The same of a running node, as if it had no namespace. An action counts as such, not as its parts."""

    def names(pairs: Any, *, actions: bool = False) -> set[str]:
        known = {name.removeprefix(namespace) for name, _ in pairs}
        return known if actions else {name for name in known if "/_action/" not in name}

    return {
        "publish": names(asker.get_publisher_names_and_types_by_node(node, namespace)),
        "subscribe": names(asker.get_subscriber_names_and_types_by_node(node, namespace)),
        "reply": names(asker.get_service_names_and_types_by_node(node, namespace)),
        "request": names(asker.get_client_names_and_types_by_node(node, namespace)),
        "execute": names(
            action_graph.get_action_server_names_and_types_by_node(asker, node, namespace), actions=True
        ),
        "call": names(
            action_graph.get_action_client_names_and_types_by_node(asker, node, namespace), actions=True
        ),
    }


def together(first: Names, second: Names) -> Names:
    return {role: first[role] | second[role] for role in ROLES}


@pytest.fixture(scope="module")
def policed(graph: Any, any_bundle: Path) -> Iterator[Any]:
    """Two nodes with all their cameras: the one takes raw pictures and the clock of the machine, the other
    compressed ones and /clock. Two simulated cameras.
    """
    started = []
    for namespace, options in zip(
        NAMESPACES, ({"transport": "raw"}, {"transport": "compressed"}), strict=True
    ):
        options |= {"cameras": repr(list(CAMERAS)), "use_sim_time": namespace == NAMESPACES[1]}
        node = {"bundle": any_bundle, "threads": 1, **options}
        started.append(graph.start("mobilevlm_node", node, f"__ns:={namespace}"))
    for name in ("", "front"):
        own = [f"__ns:={NAMESPACES[0]}", f"__node:={name}_camera" if name else "__node:=camera"]
        own += [f"{topic}:={name}/{topic}" for topic in ("image", "image/compressed") if name]
        started.append(graph.start("camera_node", {"rate": 1.0}, *own))
    yield graph
    for child in started:
        child.process.terminate()
    for child in started:
        child.stop()
        graph.children.remove(child)


def until_the_same(graph: Any, node: str, wanted: Names, namespaces: tuple[str, ...]) -> None:
    found: Names = {}

    def same() -> bool:
        try:
            seen = [live(graph.node, node, namespace) for namespace in namespaces]
        except Exception:  # it is not in the graph yet
            return False
        found.update(seen[0] if len(seen) == 1 else together(*seen))
        return found == wanted

    end = monotonic() + LIMIT
    while not same() and monotonic() < end:
        graph.client.spin(0.1)
    for role in ROLES:
        assert found[role] == wanted[role], f"{node}: {role}"


def test_the_policy_is_what_the_node_has_in_the_graph(policed: Any) -> None:
    until_the_same(policed, "mobilevlm", allowed("mobilevlm"), NAMESPACES)


@pytest.mark.parametrize("node", ["camera", "front_camera"])
def test_the_policy_is_what_cameras_have_in_the_graph(policed: Any, node: str) -> None:
    wanted = allowed(node)
    wanted["subscribe"] -= {"/clock"}  # only with use_sim_time
    until_the_same(policed, node, wanted, NAMESPACES[:1])


def test_all_cameras_may_do_the_same() -> None:
    front, rear = allowed("front_camera"), allowed("rear_camera")
    assert {role: {name.replace("front", "rear") for name in front[role]} for role in ROLES} == rear


def test_the_policy_is_what_the_clients_have_in_the_graph(graph: Any) -> None:
    args = ["--ros-args", "-r", "__ns:=/policed_client"]
    with AskImageClient(args=args):
        other = AsyncAskImageClient(args=args)
        try:
            for node in ("mobilevlm_client", "mobilevlm_async_client"):
                wanted = allowed(node)
                wanted["subscribe"] -= {"/clock"}  # only with use_sim_time

                until_the_same(graph, node, wanted, ("/policed_client",))
        finally:
            other.close()


def test_who_asks_or_watches_cannot_change_the_node() -> None:
    node = allowed("mobilevlm")
    for other in ("mobilevlm_client", "mobilevlm_async_client", "monitor_watcher"):
        assert allowed(other)["request"] <= {"/ask_image"}
    watcher = allowed("monitor_watcher")
    assert watcher["subscribe"] - GLOBAL == {"/mobilevlm/monitors"} and not watcher["call"]
    operator = allowed("mobilevlm_operator")["request"]
    assert (
        operator < node["reply"] and "/mobilevlm/reload_bundle" in operator and "/ask_image" not in operator
    )
