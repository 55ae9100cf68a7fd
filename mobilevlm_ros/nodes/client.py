# SPDX-License-Identifier: Apache-2.0
"""Asking the node from Python and from a shell: `mobilevlm_client "Is the door open?"`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

from mobilevlm_ros.errors import MobileVLMError, RequestTimeout
from mobilevlm_ros.nodes.status import name_of

GRACE = 5.0
"""Seconds that the client waits longer than the node may take: the node's own TIMEOUT says more than ours."""

_SLICE = 0.1  # seconds between looks at Ctrl-C while waiting


class AskImageClient:
    """Asks questions; has its own ROS context and node, so it works in any program. Not thread-safe.

    Attributes:
        node: the client's node, for subscriptions beside the questions; served by `spin` and while asking.
        last_model: what answered last (model id and backend).

    Args:
        service: name of the service, relative or absolute.
        args: ROS arguments, e.g. ['--ros-args', '-r', 'ask_image:=/front/ask_image'].
    """

    def __init__(self, service: str = "ask_image", args: Sequence[str] | None = None) -> None:
        self._context = Context()
        rclpy.init(args=list(args or []), context=self._context)
        self.node = rclpy.create_node("mobilevlm_client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.last_model = ""
        self._client = self.node.create_client(AskImage, service)

    def __enter__(self) -> AskImageClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the ROS graph."""
        if self._context.ok():
            self._executor.remove_node(self.node)
            self.node.destroy_node()
            self._context.try_shutdown()

    def spin(self, seconds: float) -> None:
        """Serve the node's subscriptions for some time."""
        self._executor.spin_once(timeout_sec=seconds)

    def wait_for_node(self, timeout: float) -> bool:
        """Whether something serves the questions, waiting for it up to `timeout` seconds."""
        return bool(self._client.wait_for_service(timeout))

    def ask(
        self,
        question: str,
        *,
        camera: str = "",
        choices: Sequence[str] = (),
        image: NDArray[np.uint8] | Image | None = None,
        timeout: float = 30.0,
        **fields: Any,
    ) -> Any:
        """The response to a question (mobilevlm_msgs/srv/AskImage.Response; look at its status first).

        Args:
            question: plain language.
            camera: name of a configured camera; empty for the default one.
            choices: possible answers; empty for free text.
            image: RGB u8[H, W, 3] or a message to ask about instead of a camera's picture.
            timeout: seconds, for finding the node and for the answer.
            fields: any other field of the request.

        Raises:
            RequestTimeout: nothing serves the questions, or no response came.
        """
        request = AskImage.Request(
            question=question, camera=camera, choices=list(choices), timeout=float(timeout), **fields
        )
        if isinstance(image, Image):
            request.image = image
        elif image is not None:
            height, width = image.shape[:2]
            request.image = Image(height=height, width=width, encoding="rgb8", step=width * 3)
            request.image.data = np.ascontiguousarray(image).tobytes()
        return self.call(request, timeout + GRACE)

    def call(self, request: Any, timeout: float) -> Any:
        """The response to a request that is already filled; see `ask`. `timeout` in seconds."""
        name = self._client.srv_name
        start = monotonic()
        if not self.wait_for_node(timeout):
            raise RequestTimeout(
                f"nothing serves {name} after {timeout:.0f} s: start mobilevlm_node, and check ROS_DOMAIN_ID"
            )
        future: Future = self._client.call_async(request)
        while not future.done() and monotonic() - start < timeout:
            self._executor.spin_until_future_complete(future, timeout_sec=_SLICE)
        if not future.done():
            self._client.remove_pending_request(future)
            raise RequestTimeout(f"no response from {name} within {timeout:.0f} s: check the node's log")
        response: Any = future.result()
        self.last_model = f"{response.model_id} on {response.backend}"
        return response


def as_dict(response: Any) -> dict[str, Any]:
    """What a response says, for JSON."""
    stamp = response.header.stamp
    latency = response.latency
    return {
        "status": name_of(response.status.code),
        "message": response.status.message,
        "answer": response.answer,
        "confidence": response.confidence,
        "choice_probabilities": dict(
            zip(response.choices, map(float, response.choice_probabilities), strict=True)
        ),
        "abstained": response.abstained,
        "camera": response.camera,
        "stamp": stamp.sec + stamp.nanosec * 1e-9,
        "frame_id": response.header.frame_id,
        "finish_reason": response.finish_reason,
        "prompt_tokens": response.prompt_tokens,
        "cached_tokens": response.cached_tokens,
        "generated_tokens": response.generated_tokens,
        "latency": {
            part: getattr(latency, part) for part in ("queue", "encode", "prefill", "decode", "total")
        },
        "model_id": response.model_id,
        "backend": response.backend,
    }


def as_text(response: Any) -> str:
    """What a response says, for people."""
    if response.status.code != Status.OK:
        return f"{name_of(response.status.code)}: {response.status.message}"
    latency = response.latency
    lines = [response.answer if not response.abstained else f"(abstained) {response.status.message}"]
    lines += [
        f"  {choice}: {p:.3f}"
        for choice, p in zip(response.choices, response.choice_probabilities, strict=True)
    ]
    lines.append(
        f"  confidence {response.confidence:.3f}, {latency.total * 1000:.0f} ms "
        f"(queue {latency.queue * 1000:.0f}, "
        f"encode {latency.encode * 1000:.0f}, prefill {latency.prefill * 1000:.0f}, "
        f"decode {latency.decode * 1000:.0f}), {response.model_id} on {response.backend}"
    )
    return "\n".join(lines)


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mobilevlm_client", description="Ask a running mobilevlm_node a question."
    )
    parser.add_argument("question", help="in plain language")
    parser.add_argument(
        "--camera", default="", help="name of a configured camera (default: the node's first)"
    )
    parser.add_argument("--choices", nargs="+", default=[], metavar="CHOICE", help="possible answers")
    parser.add_argument("--max-tokens", type=int, default=0, help="length limit (default: the node's)")
    parser.add_argument(
        "--max-age", type=float, default=0.0, help="oldest frame, seconds (default: the node's)"
    )
    parser.add_argument(
        "--wait-for-frame", type=float, default=5.0, help="for a fresh frame, seconds (default: %(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds (default: %(default)s)")
    parser.add_argument("--service", default="ask_image", help="name of the service (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the response as JSON")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of the executable `mobilevlm_client`; 0 only when the status is OK."""
    argv = list(sys.argv if args is None else ["mobilevlm_client", *args])
    options = _parse(remove_ros_args(argv)[1:])
    try:
        with AskImageClient(options.service, argv) as client:
            response = client.ask(
                options.question,
                camera=options.camera,
                choices=options.choices,
                timeout=options.timeout,
                max_age=options.max_age,
                wait_for_frame=max(0.0, options.wait_for_frame),
                max_tokens=max(0, options.max_tokens),
            )
    except MobileVLMError as error:
        print(f"mobilevlm_client: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(as_dict(response), indent=1) if options.json else as_text(response))
    return 0 if response.status.code == Status.OK else 1


if __name__ == "__main__":
    sys.exit(main())
