# SPDX-License-Identifier: Apache-2.0
"""Compares a bundle's graphs with what its manifest says of them."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime

from mobilevlm_ros.engine.manifest import Manifest
from mobilevlm_ros.errors import BundleError


def check_vision(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    """Raises BundleError unless the encoder takes and gives what the manifest says."""
    side = manifest.image_size
    _compare("an image", _shape(session.get_inputs(), "pixels"), (None, side, side, 3))
    outputs = session.get_outputs()
    if outputs:
        tokens = manifest.image_tokens, manifest.hidden_size
        _compare("the encoder's output", tuple(outputs[0].shape), (None, *tokens))


def check_decoder(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    """Raises BundleError unless the decoder has the sizes that the manifest says."""
    inputs = session.get_inputs()
    layers = sum(value.name.startswith("past.") and value.name.endswith(".key") for value in inputs)
    if layers != manifest.num_layers:
        raise _wrong(f"num_layers is {manifest.num_layers}, and the decoder has {layers}")
    _compare("embeddings", _shape(inputs, "embeddings"), (None, None, manifest.hidden_size))
    _compare("a key", _shape(inputs, "past.0.key"), (None, manifest.num_kv_heads, None, manifest.head_dim))
    logits = _shape(session.get_outputs(), "logits")
    if logits:
        _compare("the logits", logits, (None,) * (len(logits) - 1) + (manifest.vocab_size,))


def _shape(values: Sequence[onnxruntime.NodeArg], name: str) -> tuple[object, ...]:
    return next((tuple(value.shape) for value in values if value.name == name), ())


def _compare(what: str, found: tuple[object, ...], told: tuple[int | None, ...]) -> None:
    """Sizes that the graph leaves open, which are no numbers, fit anything."""
    if len(found) != len(told) or any(
        isinstance(size, int) and expected is not None and size != expected
        for size, expected in zip(found, told)
    ):
        raise _wrong(f"{what} is told to be {_text(told)}, and is {_text(found)} in the graph")


def _text(shape: tuple[object, ...]) -> str:
    return " x ".join(str(size) if isinstance(size, int) else "any" for size in shape)


def _wrong(reason: str) -> BundleError:
    return BundleError(
        f"bundle.json does not fit its graphs: {reason}; build the bundle again with `mobilevlm build`"
    )
