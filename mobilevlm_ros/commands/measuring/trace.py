# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm trace CHECKPOINT IMAGE QUESTION -o OUT.npz`: each stage of an answer, for comparison.

The arrays (PyTorch, float32, CPU; image side S, N patches, M image tokens, T ids, V words, widths D, H):

    pixel_values     f32[1,3,S,S]   the image after padding, resizing and normalising
    vision_features  f32[1,N,D]     the tower's selected layer, without the class token
    projector        f32[1,M,H]     the image tokens
    input_ids        i64[1,T]       the prompt, -200 where the image goes
    logits           f32[1,T-1+M,V] of the whole prompt
    greedy           i64[1,n]       the likeliest continuation; n is --tokens, or less where it ends with </s>
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.commands import options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


ARRAYS = {"pixel_values", "vision_features", "projector", "input_ids", "logits", "greedy"}
"""What a trace holds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    options.add_checkpoint(parser)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="picture file (JPEG, PNG, ...)")
    parser.add_argument("question", metavar="QUESTION")
    options.add_output(parser, "OUT.npz", "file to write; one of an earlier trace is replaced")
    parser.add_argument("--tokens", type=int, default=20, help="most ids in `greedy` (default: 20)")
    parser.add_argument("--template", default="v1", help="prompt template (default: v1)")
    options.add_json(parser, "shapes and the answer")


def main(args: argparse.Namespace) -> int:
    """Writes the arrays; prints the continuation as text."""
    import numpy as np

    from mobilevlm_ros.checkpoints.hub import locate
    from mobilevlm_ros.errors import QuestionError
    from mobilevlm_ros.files.atomic import check_file, new_file
    from mobilevlm_ros.processing.prompt_template import TEMPLATES

    if args.template not in TEMPLATES:
        raise QuestionError(f"unknown template {args.template!r}; known: {', '.join(TEMPLATES)}")
    if args.tokens < 1:
        raise QuestionError(f"--tokens is {args.tokens}; it must be at least 1")
    check_file(args.output, overwrite=args.overwrite, ours=_is_trace)
    rgb = read_rgb(args.image)
    checkpoint = locate(args.checkpoint, args.revision)
    arrays, answer = trace(checkpoint, rgb, args.question, args.tokens, args.template)
    with new_file(args.output, overwrite=args.overwrite, ours=_is_trace) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)  # a name would get .npz appended
    if args.json:
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        print(
            json.dumps({"output": str(args.output), "answer": answer, "shapes": shapes}, ensure_ascii=False)
        )
    else:
        print(answer)
    return 0


def trace(
    checkpoint: Path, rgb: NDArray[np.uint8], question: str, tokens: int = 20, template: str = "v1"
) -> tuple[dict[str, NDArray[Any]], str]:
    """The arrays listed above and the text of `greedy`, for an image u8[H,W,3].

    Raises CheckpointError, ImageError, or ContextOverflow when prompt and `tokens` exceed its context.
    """
    import numpy as np
    import torch

    from mobilevlm_ros.checkpoints.checkpoint import load
    from mobilevlm_ros.engine.greedy import decode_greedily
    from mobilevlm_ros.engine.torch.backend import TorchLanguage
    from mobilevlm_ros.errors import ContextOverflow
    from mobilevlm_ros.processing.image import normalize, prepare
    from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question
    from mobilevlm_ros.processing.tokenizer import Tokenizer

    model = load(checkpoint, torch.float32)
    config = model.config
    tokenizer = Tokenizer(checkpoint / "tokenizer.model")
    tokenizer.check_fits(config.language.vocab_size)
    ids = tokenizer.encode_prompt(TEMPLATES[template].render([(image_question(question), None)]))
    length = len(ids) - 1 + config.num_image_tokens
    if length + tokens > config.language.context_length:
        raise ContextOverflow(
            f"{length} prompt positions and {tokens} new ones exceed the model's context of"
            f" {config.language.context_length}; shorten the question or lower --tokens"
        )
    pixels = normalize(prepare(rgb, config.vision.image_size, aspect=config.aspect))[None]
    with torch.inference_mode():
        features = model.encode_features(torch.from_numpy(pixels))
        image = model.project(features)
        prompt = model.embed_prompt(ids, image).numpy()
    language = TorchLanguage(model)
    cache = language.new_cache(capacity=length + tokens)
    logits = language.forward(prompt, cache, length)
    answer, chosen = decode_greedily(language, cache, logits[0, -1], (tokenizer.eos_id,), tokens)
    greedy = answer if len(answer) == len(chosen) else [*answer, tokenizer.eos_id]
    arrays: dict[str, NDArray[Any]] = {
        "pixel_values": pixels,
        "vision_features": features.numpy(),
        "projector": image.numpy(),
        "input_ids": np.array([ids], np.int64),
        "logits": logits,
        "greedy": np.array([greedy], np.int64),
    }
    return arrays, tokenizer.decode(greedy).strip()


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A picture file as RGB u8[H,W,3], without EXIF rotation, like the official code. Raises ImageError."""
    from mobilevlm_ros.processing.image_decoder import decode_image
    from mobilevlm_ros.processing.image_file import read_bytes

    return decode_image(read_bytes(path), str(path), as_held=False)


def _is_trace(path: Path) -> bool:
    """Whether a file is what this verb writes, and nothing else."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()} == ARRAYS
    except (OSError, zipfile.BadZipFile):
        return False
