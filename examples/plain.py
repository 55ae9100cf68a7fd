# SPDX-License-Identifier: Apache-2.0
"""Plain Python, no ROS: look at a picture in every way there is.

python examples/plain.py docs/road.png
python examples/plain.py photo.jpg ~/bundles/v2-1.7b
"""

from __future__ import annotations

import sys

from mobilevlm_ros import MobileVLM


def main(picture: str, model: str | None = None) -> None:
    """Ask about a picture file; `model` is a bundle or a checkpoint, by default nano."""
    with MobileVLM(model) as vlm:
        print(vlm)
        print("left: ", vlm.ask(picture, "What is on the left?"))

        answer = vlm.ask(picture, "Is there a person?", choices=["yes", "no"])
        print(
            f"person: {answer.text} (yes {answer.probabilities['yes']:.1%}) in {answer.latency.total:.3f} s"
        )

        print("scene: ", end="")
        for piece in vlm.stream(picture, "Describe the scene."):
            print(piece, end="", flush=True)
        print()

        for answer in vlm.ask_many(picture, ["Is it day or dusk?", "How many objects do you see?"]):
            print("many: ", answer)

        chat = vlm.chat(picture)
        chat.ask("What is on the left?")
        print("chat: ", chat.ask("What color is it?"))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
