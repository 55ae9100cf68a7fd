# SPDX-License-Identifier: Apache-2.0
"""Another bundle takes over while questions come in: none is lost, and each is answered by one of the two."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage, ReloadBundle
from sensor_msgs.msg import Image

PICTURE = Image(width=8, height=8, encoding="mono8", step=8, data=bytes(64))
PACE = 0.02
"""Seconds between two questions of the stream."""


@pytest.fixture(scope="module")
def node(second_node, any_bundle: Path) -> Iterator[Any]:
    made = second_node("swapped", bundle=any_bundle, queue_size=1000)
    yield made
    made.close()


class Stream:
    """Asks without waiting for answers."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._client = node.graph.client_of(AskImage, f"/{node.name}/ask_image")
        assert self._client.wait_for_service(60.0)
        self._next = 0.0
        self.futures: list[Any] = []

    def ask(self, question: str = "Is it?", **fields: Any) -> Any:
        request = AskImage.Request(question=question, image=PICTURE, **fields)
        self.futures.append(self._client.call_async(request))
        return self.futures[-1]

    def keep_asking(self) -> None:
        if monotonic() >= self._next:
            self._next = monotonic() + PACE
            self.ask(choices=["yes", "no"])

    def answers(self) -> list[Any]:
        self._node.graph.until(lambda: all(future.done() for future in self.futures), "the last answer")
        return [future.result() for future in self.futures]


def reload(node: Any, bundle: object = "", backend: str = "") -> Any:
    client = node.graph.client_of(ReloadBundle, f"/{node.name}/reload_bundle")
    assert client.wait_for_service(60.0)
    return client.call_async(ReloadBundle.Request(bundle=str(bundle), backend=backend))


def test_every_question_of_a_stream_is_answered_by_the_old_model_or_the_new_one(
    node: Any, endless_bundle: Path
) -> None:
    old = node.ask(choices=["yes", "no"]).model_id
    stream = Stream(node)
    done = reload(node, endless_bundle)

    def over() -> bool:
        stream.keep_asking()
        return bool(done.done())

    node.graph.until(over, "the reload")
    response = done.result()
    assert response.status.code == Status.OK, response.status.message
    assert response.bundle == str(endless_bundle) and response.backend and response.duration > 0
    assert response.model_id not in ("", old)
    during = len(stream.futures)
    for _ in range(3):
        stream.ask(choices=["yes", "no"])
    answers = stream.answers()
    assert {answer.status.code for answer in answers} == {Status.OK}
    models = [answer.model_id for answer in answers]
    # The executor has several threads: the later of two questions around the change may be taken first.
    assert set(models[:during]) <= {old, response.model_id}
    assert set(models[during:]) == {response.model_id}


def test_a_running_answer_ends_with_the_model_it_began_with(node: Any, any_bundle: Path) -> None:
    endless = node.ask(choices=["yes", "no"]).model_id
    stream = Stream(node)
    running = stream.ask("Say something.", max_tokens=600, timeout=-1.0)
    for _ in range(5):
        stream.ask(choices=["yes", "no"])
    done = reload(node, any_bundle)
    node.graph.until(done.done, "the reload")
    assert done.result().status.code == Status.OK, done.result().status.message
    assert {answer.status.code for answer in stream.answers()} == {Status.OK}
    assert running.result().model_id == endless
    assert running.result().generated_tokens == 600
    assert node.ask(choices=["yes", "no"]).model_id == done.result().model_id != endless


def test_the_parameters_tell_which_bundle_runs(node: Any, endless_bundle: Path, any_bundle: Path) -> None:
    assert node.get("bundle") == str(any_bundle)
    assert not node.set("bundle", str(endless_bundle)).successful
    assert node.reload(endless_bundle, "auto").status.code == Status.OK
    assert node.get("bundle") == str(endless_bundle)
    again = node.reload()
    assert again.status.code == Status.OK and again.bundle == str(endless_bundle)


@pytest.mark.parametrize("kind", ["missing", "empty", "corrupt", "file"])
def test_a_bundle_that_cannot_be_used_changes_nothing(
    node: Any, any_bundle: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("not a bundle")
    elif kind == "corrupt":
        shutil.copytree(any_bundle, path)
        victim = max(path.iterdir(), key=lambda file: file.stat().st_size)
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 0xFF
        victim.write_bytes(content)
    before = node.ask(choices=["yes", "no"]).model_id
    response = node.reload(path)
    assert response.status.code == Status.BUNDLE_ERROR
    assert str(path) in response.status.message
    assert response.model_id == before
    assert node.ask(choices=["yes", "no"]).model_id == before


def test_an_unknown_backend_changes_nothing(node: Any) -> None:
    before = node.ask(choices=["yes", "no"]).model_id
    response = node.reload(backend="abacus")
    assert response.status.code == Status.ENGINE_ERROR and "abacus" in response.status.message
    assert node.ask(choices=["yes", "no"]).model_id == before


def test_conversations_with_the_old_model_are_forgotten_and_say_so(node: Any, any_bundle: Path) -> None:
    assert node.reload(any_bundle).status.code == Status.OK
    turns = [node.ask(session="talk", max_tokens=4).session_turn for _ in range(2)]
    assert turns == [1, 2]
    assert node.reload().status.code == Status.OK
    assert node.ask(session="talk", max_tokens=4).session_turn == 1


def test_one_reload_at_a_time(node: Any) -> None:
    both = [reload(node), reload(node)]
    node.graph.until(lambda: all(future.done() for future in both), "both")
    codes = sorted(future.result().status.code for future in both)
    assert codes == [Status.OK, Status.BUSY]


def test_without_a_model_there_is_nothing_to_replace(node: Any, any_bundle: Path) -> None:
    assert node.change(Transition.TRANSITION_DEACTIVATE)
    assert node.reload(any_bundle).status.code == Status.OK  # an inactive node has one
    assert node.change(Transition.TRANSITION_CLEANUP)
    response = node.reload(any_bundle)
    assert response.status.code == Status.NOT_ACTIVE and "configure" in response.status.message
    assert response.model_id == ""
