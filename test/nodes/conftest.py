# SPDX-License-Identifier: Apache-2.0
"""Real nodes in processes of their own, started once, and a client that talks to them over DDS."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Generator
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import pytest

if importlib.util.find_spec("rclpy") is None or importlib.util.find_spec("mobilevlm_msgs") is None:
    # What needs no ROS is tested anyway.
    collect_ignore_glob = ["test_node_*.py", "test_client.py", "test_camera_node.py", "test_demo.py"]
else:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetState
    from mobilevlm_msgs.action import AskImage as AskImageAction
    from mobilevlm_msgs.msg import Status
    from mobilevlm_msgs.srv import AskImage, ReloadBundle
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import GetParameters, SetParameters
    from rclpy.action import ActionClient

    from mobilevlm_ros.nodes.children import Child
    from mobilevlm_ros.nodes.client import AskImageClient
    from mobilevlm_ros.nodes.reception import SERVICE_QOS

RESEND = 2.0
"""Seconds without a response after which a request is taken for lost."""
LIMIT = 90.0
"""Seconds for anything to happen on a machine that is busy with something else."""

SEED = 3


class Graph:
    """The client's side of the graph, and the processes on the other side."""

    def __init__(self) -> None:
        self.client = AskImageClient()
        self.node = self.client.node
        self.children: list[Child] = []
        self._clients: dict[str, Any] = {}

    def start(self, name: str, parameters: dict[str, object], *remappings: str) -> Child:
        """Start `camera_node` or `mobilevlm_node` in a process."""
        child = Child(name, f"mobilevlm_ros.nodes.{name}", parameters, os.environ, remappings)
        self.children.append(child)
        return child

    def until(self, condition: Callable[[], Any], what: str = "it") -> Any:
        """Serve our subscriptions until a condition holds; its value."""
        end = monotonic() + LIMIT
        while not (value := condition()):
            if monotonic() > end:
                logs = "\n".join(f"--- {child.name}\n{child.log(30)}" for child in self.children)
                pytest.fail(f"{what} did not happen within {LIMIT:.0f} s\n{logs}")
            self.client.spin(0.05)
        return value

    def client_of(self, kind: Any, service: str) -> Any:
        """The one client of a service. Made early, it is known to the server when its first request comes.

        With the default depth a burst of more than 10 responses would push out the first ones.
        """
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service, qos_profile=SERVICE_QOS)
        return self._clients[service]

    def call(self, kind: Any, service: str, request: Any, *, greeting: Any = None) -> Any:
        """The response of any service.

        A server that has not discovered a client yet takes none of its requests, or drops its response, so
        the request is sent again when none comes. One that may be sent only once follows a `greeting`, a
        request that changes nothing, whose response shows that the two know each other.
        """
        client = self.client_of(kind, service)
        if greeting is not None:
            self._response(client, greeting)
        return self._response(client, request, once=greeting is not None)

    def _response(self, client: Any, request: Any, *, once: bool = False) -> Any:
        assert client.wait_for_service(LIMIT), f"{client.srv_name} is not there"
        futures = [client.call_async(request)]
        sent = monotonic()

        def answered() -> Any:
            nonlocal sent
            if not once and monotonic() - sent > RESEND:
                futures.append(client.call_async(request))
                sent = monotonic()
            return next((future for future in futures if future.done()), None)

        return self.until(answered, client.srv_name).result()

    def action(self, name: str) -> Any:
        """A client of an action `ask`, which the node knows already; `destroy` it."""
        made = ActionClient(self.node, AskImageAction, name)
        assert made.wait_for_server(LIMIT), f"{name} is not there"
        # DDS tells of clients in their order: once a later one is known, so is this.
        later = self.node.create_client(AskImage, f"{name}_image", qos_profile=SERVICE_QOS)
        self._response(later, AskImage.Request())
        self.node.destroy_client(later)
        return made

    def change(self, service: str, transition: int) -> bool:
        """Whether a lifecycle transition succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        unknown = ChangeState.Request(transition=Transition(label="hello"))
        return bool(self.call(ChangeState, service, request, greeting=unknown).success)

    def until_gone(self, name: str) -> None:
        """Wait until the graph holds no such node: it would get the requests of the next one."""
        self.until(lambda: name not in self.node.get_node_names(), f"the leave of {name}")

    def close(self) -> None:
        """End all processes."""
        for child in self.children:
            child.stop()
        self.client.close()


class Second:
    """A node of a test's own, beside the session's: /<name>, which serves <name>/ask_image."""

    def __init__(self, graph: Graph, name: str, **parameters: object) -> None:
        self.graph = graph
        self.name = name
        # Known to the node long before they are used.
        graph.client_of(ChangeState, f"/{name}/change_state")
        graph.client_of(ReloadBundle, f"/{name}/reload_bundle")
        own = ("ask_image", "ask", "image", "image/compressed")
        self.child = graph.start(
            "mobilevlm_node",
            {"threads": 1, **parameters},
            f"__node:={name}",
            *(f"{topic}:={name}/{topic}" for topic in own),
        )
        self.client = AskImageClient(f"{name}/ask_image")
        assert self.client.wait_for_node(LIMIT), self.child.log()

    def close(self) -> None:
        """End it."""
        self.client.close()
        self.child.stop()
        self.graph.children.remove(self.child)
        self.graph.until_gone(self.name)

    def status(self) -> Status:
        return self.ask(choices=["yes", "no"]).status

    def ask(self, **fields: Any) -> Any:
        """The response to a question about a grey picture."""
        picture = np.full((48, 48, 3), 128, np.uint8)
        return self.client.ask("Is it?", image=picture, timeout=60.0, **fields)

    def reload(self, bundle: object = "", backend: str = "") -> Any:
        """The response of ~/reload_bundle."""
        request = ReloadBundle.Request(bundle=str(bundle), backend=backend)
        nowhere = ReloadBundle.Request(backend="nowhere")
        return self.graph.call(ReloadBundle, f"/{self.name}/reload_bundle", request, greeting=nowhere)

    def state(self) -> int:
        return int(self.graph.call(GetState, f"/{self.name}/get_state", GetState.Request()).current_state.id)

    def change(self, transition: int) -> bool:
        return self.graph.change(f"/{self.name}/change_state", transition)

    def get(self, name: str) -> Any:
        """Value of a parameter that is a text."""
        request = GetParameters.Request(names=[name])
        answer = self.graph.call(GetParameters, f"/{self.name}/get_parameters", request)
        return answer.values[0].string_value

    def set(self, name: str, value: Any) -> Any:
        kinds = {bool: (1, "bool_value"), int: (2, "integer_value"), float: (3, "double_value")}
        kind, field = kinds.get(type(value), (4, "string_value"))
        wrapped = ParameterValue(**{"type": kind, field: value})
        request = SetParameters.Request(parameters=[Parameter(name=name, value=wrapped)])
        return self.graph.call(SetParameters, f"/{self.name}/set_parameters", request).results[0]


@pytest.fixture(scope="session")
def seed() -> int:
    """Of the scene that the default camera sees."""
    return SEED


@pytest.fixture(scope="session")
def graph() -> Generator[Graph, None, None]:
    made = Graph()
    yield made
    made.close()


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real photograph at 1280x720."""
    data = pytest.importorskip("skimage.data", reason="scikit-image ships the photograph")
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    picture = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), cv2.resize(picture, (1280, 720)))
    return path


@pytest.fixture(scope="session")
def node(graph: Graph, any_bundle: Path, photo: Path) -> Child:
    """The node with four cameras: the default one sees a scene, 'photo' a photograph, 'odd' what a test
    publishes, and nobody publishes 'silent'.
    """
    graph.start("camera_node", {"seed": SEED, "rate": 5.0})
    graph.start(
        "camera_node",
        {"photo": photo, "rate": 1.0, "frame_id": "photo_optical_frame"},
        "__node:=photo_camera",
        "image:=photo/image",
        "image/compressed:=photo/image/compressed",
    )
    parameters = {
        "bundle": any_bundle,
        "threads": 1,
        "cameras": "['', 'photo', 'odd', 'silent']",
        "caption_max_tokens": 16,
        "caption_rate": 2.0,
    }
    child = graph.start("mobilevlm_node", parameters)
    warm_up = graph.client.ask("Is it?", timeout=LIMIT, wait_for_frame=LIMIT, choices=["yes", "no"])
    assert warm_up.status.code == 1, f"{warm_up.status.message}\n{child.log()}"
    return child


@pytest.fixture(scope="session")
def endless(graph: Graph, node: Child, endless_bundle: Path) -> Child:
    """A second node, `endless/ask_image` and `endless/ask`, whose answers go on until they are stopped."""
    parameters = {"bundle": endless_bundle, "threads": 1, "caption_rate": 0.0}
    # In a namespace: before Kilted, remapping does not reach the name of an action.
    images = [f"{name}:=/{name}" for name in ("image", "image/compressed")]
    return graph.start("mobilevlm_node", parameters, "__node:=endless", "__ns:=/endless", *images)


@pytest.fixture(scope="session")
def second_node(graph: Graph) -> Callable[..., Second]:
    """Starts a node of a test's own: second_node(name, **parameters)."""
    return lambda name, **parameters: Second(graph, name, **parameters)


@pytest.fixture
def ask(graph: Graph, node: Child) -> Callable[..., Any]:
    """Ask the session's node; frames of any age will do unless the test says otherwise."""

    def put(question: str = "What is on the left?", **fields: Any) -> Any:
        options = {"max_tokens": 8, "max_age": -1.0, "wait_for_frame": 20.0, "timeout": LIMIT, **fields}
        return graph.client.ask(question, **options)

    return put
