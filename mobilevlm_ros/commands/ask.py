# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm ask IMAGE QUESTION`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mobilevlm_ros.inference.types import Answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="picture file (JPEG, PNG, ...)")
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument(
        "--bundle", type=Path, help="bundle directory (default: the small model that comes with the package)"
    )
    parser.add_argument(
        "--choices",
        nargs="+",
        default=[],
        metavar="CHOICE",
        help="answer with one of these, and give a probability for each",
    )
    parser.add_argument("--max-tokens", type=int, default=64, help="longest answer (default: 64)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="0 takes the likeliest word, more is more random (default: 0)",
    )
    parser.add_argument("--backend", default="auto", help="what runs the model (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: one per physical core)")
    parser.add_argument("--json", action="store_true", help="print answer, confidence and latency as JSON")


def main(args: argparse.Namespace) -> int:
    """Asks; the answer goes to stdout as it grows, confidence and latency to stderr."""
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.inference.assistant import Assistant
    from mobilevlm_ros.inference.types import Frame, Request

    frame = Frame(read_image(args.image))
    runtime = load_runtime(args.bundle, args.backend, args.threads)
    request = Request(
        args.question,
        choices=tuple(args.choices),
        max_tokens=args.max_tokens,
        temperature=args.temperature,
    )
    if args.json:
        answer = Assistant(runtime).ask(frame, request)
        model = {"model": runtime.bundle.manifest.name, "backend": runtime.backend_name}
        print(json.dumps({**dataclasses.asdict(answer), **model}, ensure_ascii=False))
        return 0
    answer = Assistant(runtime).ask(frame, request, on_text=_Typewriter())
    _report(answer, args.choices)
    return 0


def read_image(path: Path) -> NDArray[np.uint8]:
    """A picture file as RGB u8 [H, W, 3], turned upright as its EXIF says. Raises ImageError."""
    import cv2
    import numpy as np

    from mobilevlm_ros.errors import ImageError

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(f"{path} is not a picture that OpenCV can read; convert it to JPEG or PNG")
    return np.ascontiguousarray(image[..., ::-1], np.uint8)  # OpenCV reads blue first


class _Typewriter:
    """Prints pieces of text as they come, without the space they begin with."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, piece: str) -> None:
        piece = piece if self._begun else piece.lstrip()
        self._begun = self._begun or bool(piece)
        print(piece, end="", flush=True)


def _report(answer: Answer, choices: list[str]) -> None:
    if choices:
        for choice, probability in zip(choices, answer.choice_probabilities, strict=True):
            print(f"{probability:6.1%}  {choice}")
    else:
        print()
    times = answer.latency
    print(
        f"confidence {answer.confidence:.2f}, {times.total * 1e3:.0f} ms (encode {times.encode * 1e3:.0f}, "
        f"prefill {times.prefill * 1e3:.0f}, decode {times.decode * 1e3:.0f})",
        file=sys.stderr,
    )
