# SPDX-License-Identifier: Apache-2.0
"""py_trees behaviours over a running node: conditions and choices by looking, and waiting for a monitor.

Each asks through the action and never blocks a tick. Needs py_trees (extra `bt`) and ROS 2.

    looker = Questions()
    door = AskCondition("door open", looker, "Is the door open?")
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import py_trees
from mobilevlm_msgs.msg import MonitorState
from py_trees.common import Access, Status

from mobilevlm_ros.client.async_client import AsyncAskImageClient
from mobilevlm_ros.client.watcher import NodeWatcher
from mobilevlm_ros.errors import MobileVLMError, OptionError

STATES = {"unknown": MonitorState.UNKNOWN, "clear": MonitorState.CLEAR, "raised": MonitorState.RAISED}


class Questions:
    """A client for a whole tree: questions go out on a thread of its own, answers are looked at in ticks.

    Args:
        action: name of the node's action.
        args: ROS arguments.
    """

    def __init__(self, action: str = "ask", args: Sequence[str] | None = None) -> None:
        self._client = AsyncAskImageClient(action, args)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="behaviours", daemon=True)
        self._thread.start()

    def ask(self, question: str, **fields: Any) -> Future[Any]:
        """The result of a question, see `AsyncAskImageClient.ask`; cancelling it stops the model."""
        return asyncio.run_coroutine_threadsafe(self._client.ask(question, **fields), self._loop)

    def close(self) -> None:
        """End the thread and leave the ROS graph."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._client.close()


class _Asking(py_trees.behaviour.Behaviour):
    """RUNNING while a question is on its way; `_decide` makes a status of its result.

    FAILURE where there is no answer (no frame, timeout, no node, an unsure model); `feedback_message` says
    why.
    """

    def __init__(self, name: str, questions: Questions, question: str, **fields: Any) -> None:
        super().__init__(name)
        self._questions = questions
        self._question = question
        self._fields = fields
        self._answer: Future[Any] | None = None

    def initialise(self) -> None:
        """Asks."""
        self.feedback_message = f"asking: {self._question}"
        self._answer = self._questions.ask(self._question, **self._fields)

    def update(self) -> Status:
        """Looks whether the answer is there."""
        assert self._answer is not None, "update comes after initialise"
        if not self._answer.done():
            return Status.RUNNING
        try:
            result = self._answer.result()
        except (MobileVLMError, CancelledError) as error:
            self.feedback_message = str(error) or "cancelled"
            return Status.FAILURE
        if not result.status.ok:
            self.feedback_message = result.status.message
            return Status.FAILURE
        self.feedback_message = f"{result.answer or 'not sure'} ({result.confidence:.2f})"
        return self._decide(result)

    def terminate(self, new_status: Status) -> None:
        """Withdraws a question that is on its way: the model stops at the next token."""
        if self._answer is not None and not self._answer.done():
            self._answer.cancel()

    def _decide(self, result: Any) -> Status:
        raise NotImplementedError


class AskCondition(_Asking):
    """SUCCESS when the answer to a yes/no question is the expected one, and sure enough; else FAILURE.

    Args:
        name: of the behaviour.
        questions: the tree's client.
        question: e.g. 'Is the door open?'.
        expected: 'yes' or 'no'.
        threshold: probability that the expected answer must have, 0 to 1.
        camera: name of a camera; empty: the default one.
        fields: any other field of the action's goal (timeout, max_age, system_prompt, roi, ...).
    """

    def __init__(
        self,
        name: str,
        questions: Questions,
        question: str,
        expected: str = "yes",
        threshold: float = 0.5,
        camera: str = "",
        **fields: Any,
    ) -> None:
        if expected not in ("yes", "no"):
            raise OptionError(
                f"expected is {expected!r}: give 'yes' or 'no'; for other answers use AskChoice"
            )
        super().__init__(name, questions, question, camera=camera, choices=["yes", "no"], **fields)
        self._expected = expected
        self._threshold = threshold

    def _decide(self, result: Any) -> Status:
        odds = dict(zip(result.choices, result.choice_probabilities, strict=True))
        return Status.SUCCESS if odds[self._expected] >= self._threshold else Status.FAILURE


class AskChoice(_Asking):
    """Writes the chosen answer to the blackboard; SUCCESS when there is one that is sure enough.

    Args:
        name: of the behaviour.
        questions: the tree's client.
        question: e.g. 'What color is the traffic light?'.
        choices: at least two.
        key: of the blackboard; gets the choice. `<key>_confidence` gets its probability.
        threshold: a less probable answer is FAILURE and leaves the blackboard as it is.
        camera: name of a camera; empty: the default one.
        fields: any other field of the action's goal.
    """

    def __init__(
        self,
        name: str,
        questions: Questions,
        question: str,
        choices: Sequence[str],
        key: str,
        threshold: float = 0.0,
        camera: str = "",
        **fields: Any,
    ) -> None:
        super().__init__(name, questions, question, camera=camera, choices=list(choices), **fields)
        self._threshold = threshold
        self._key = key
        self._board = self.attach_blackboard_client(name=name)
        for written in (key, f"{key}_confidence"):
            self._board.register_key(key=written, access=Access.WRITE)

    def _decide(self, result: Any) -> Status:
        if result.confidence < self._threshold:
            return Status.FAILURE
        self._board.set(self._key, result.answer)
        self._board.set(f"{self._key}_confidence", float(result.confidence))
        return Status.SUCCESS


class WaitForMonitor(py_trees.behaviour.Behaviour):
    """RUNNING until a monitor of the node is in a state, then SUCCESS. Never asks: the monitor does.

    Args:
        name: of the behaviour.
        watcher: listens to the node.
        monitor: its name.
        state: 'raised' or 'clear'.
        camera: name of its camera; None: any.
    """

    def __init__(
        self, name: str, watcher: NodeWatcher, monitor: str, state: str = "raised", camera: str | None = None
    ) -> None:
        if state not in STATES:
            raise OptionError(f"state is {state!r}: give one of {', '.join(STATES)}")
        super().__init__(name)
        self._watcher = watcher
        self._monitor = monitor
        self._state = STATES[state]
        self._camera = camera
        self._listening: Any = None

    def initialise(self) -> None:
        """Begins to listen."""
        self.feedback_message = f"waiting for {self._monitor}"
        self._listening = self._watcher.watching()
        self._listening.__enter__()

    def update(self) -> Status:
        """Looks at the newest state."""
        for heard in self._watcher.monitors:
            state = heard.message
            if state.name == self._monitor and self._camera in (None, state.camera):
                self.feedback_message = f"{self._monitor}: {state.probability:.2f}"
                if state.state == self._state:
                    return Status.SUCCESS
        return Status.RUNNING

    def terminate(self, new_status: Status) -> None:
        """Stops listening."""
        if self._listening is not None:
            self._listening.__exit__(None, None, None)
            self._listening = None
