# SPDX-License-Identifier: Apache-2.0
"""Block-wise symmetric quantisation of weight matrices, in the layout of ONNX Runtime's MatMulNBits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BITS = (4, 8)
BLOCK_SIZES = (16, 32, 64, 128, 256)
ROWS_AT_ONCE = 1 << 19
"""Elements of a part: the search's temporaries then stay in the processor's cache."""
FACTORS = np.linspace(0.7, 1.0, 7, dtype=np.float32)
"""Of the scale that just reaches a block's extreme value: those that are tried."""


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix [N, K] as N x ceil(K / block_size) blocks; the last block of a row is padded with zeros.

    packed: u8 [N, blocks, block_size * bits / 8]; for 4 bits the first of two values is the low half.
    scales: f16 [N, blocks]. A value is scale * (stored - 2**(bits - 1)).
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float16]
    shape: tuple[int, int]
    bits: int
    block_size: int

    def dequantize(self) -> NDArray[np.float32]:
        """The matrix f32 [N, K] that the engine multiplies with."""
        stored = self.packed
        if self.bits == 4:
            stored = np.stack([stored & 15, stored >> 4], axis=-1).reshape(*stored.shape[:2], -1)
        levels = stored.astype(np.float32) - 2 ** (self.bits - 1)
        rows, columns = self.shape
        padded: NDArray[np.float32] = levels * self.scales[..., None].astype(np.float32)
        return padded.reshape(rows, -1)[:, :columns]


def quantize(weight: NDArray[np.float32], bits: int = 4, block_size: int = 32) -> QuantizedMatrix:
    """Rounds a matrix f32 [N, K] to the nearest of 2**bits levels per block.

    Each block's scale is the one of a small grid with the least squared error; either sign may take the
    level that only one side has. Raises ValueError for bits or block sizes MatMulNBits does not know.
    """
    if bits not in BITS or block_size not in BLOCK_SIZES:
        raise ValueError(f"bits must be one of {BITS} and block_size one of {BLOCK_SIZES}")
    rows, columns = weight.shape
    blocks = -(-columns // block_size)
    packed = np.empty((rows, blocks, block_size * bits // 8), np.uint8)
    scales = np.empty((rows, blocks), np.float16)
    step = max(1, ROWS_AT_ONCE // (blocks * block_size))
    for start in range(0, rows, step):
        part = np.zeros((min(step, rows - start), blocks * block_size), np.float32)
        part[:, :columns] = weight[start : start + step]
        part = part.reshape(len(part), blocks, block_size)
        chosen = best_scales(part, bits)
        scales[start : start + step] = chosen
        packed[start : start + step] = pack(nearest_levels(part, chosen.astype(np.float32), bits), bits)
    return QuantizedMatrix(packed, scales, (rows, columns), bits, block_size)


def pack(levels: NDArray[np.float32], bits: int) -> NDArray[np.uint8]:
    """QuantizedMatrix.packed of levels f32 [N, blocks, size], which are integers from -2**(bits-1) on."""
    stored = (levels + 2 ** (bits - 1)).astype(np.uint8)
    return stored if bits == 8 else stored[..., ::2] | stored[..., 1::2] << 4


def best_scales(
    blocks: NDArray[np.float32], bits: int, importance: NDArray[np.float32] | None = None
) -> NDArray[np.float16]:
    """Scales f16 [N, blocks] of blocks f32 [N, blocks, size], by squared error.

    `importance` f32 [blocks, size] weighs the errors of a matrix's columns; None weighs them alike.
    """
    low, high = blocks.min(-1), blocks.max(-1)
    extreme = np.where(high > -low, high, low)  # the value of the largest magnitude, with its sign
    half = 2 ** (bits - 1)
    # A negative scale lets level -half stand for the extreme, a positive one half - 1.
    candidates = (extreme * (factor / divisor) for divisor in (-half, half - 1) for factor in FACTORS)
    return least_error_scales(blocks, bits, candidates, importance)


def least_error_scales(
    blocks: NDArray[np.float32],
    bits: int,
    candidates: Iterable[NDArray[np.float32]],
    importance: NDArray[np.float32] | None = None,
) -> NDArray[np.float16]:
    """Of several scales f32 [N, blocks] for the same blocks f32 [N, blocks, size], each block's best as f16.

    The best has the least squared error, weighed as in `best_scales`; of equals the first. It is 0 where no
    candidate has a finite error.
    """
    best = np.zeros(blocks.shape[:2], np.float16)
    least = np.full(blocks.shape[:2], np.inf, np.float32)
    for candidate in candidates:
        scale = candidate.astype(np.float16)
        wide = scale.astype(np.float32)
        difference = nearest_levels(blocks, wide, bits) * wide[..., None] - blocks
        if importance is None:
            error = np.einsum("nbk,nbk->nb", difference, difference)
        else:
            error = np.einsum("nbk,nbk,bk->nb", difference, difference, importance)
        better = error < least
        np.copyto(best, scale, where=better)
        np.copyto(least, error, where=better)
    return best


def nearest_levels(
    blocks: NDArray[np.float32], scales: NDArray[np.float32], bits: int
) -> NDArray[np.float32]:
    """Nearest levels, -2**(bits-1) .. 2**(bits-1)-1, as f32; an all-zero block has scale 0 and levels 0."""
    inverse = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales != 0)
    levels = blocks * inverse[..., None]
    np.rint(levels, out=levels)
    half = 2 ** (bits - 1)
    return np.clip(levels, -half, half - 1, out=levels)


Quantizer = Callable[[str, NDArray[np.float32], int, int], QuantizedMatrix]
"""Makes a matrix, given its name (as in DecoderPrecision.overrides), weights f32 [N, K], bits and block size.
It is asked for matrices in the order in which the model uses them."""


def round_to_nearest(name: str, weight: NDArray[np.float32], bits: int, block_size: int) -> QuantizedMatrix:
    """The Quantizer that looks at nothing but the matrix."""
    return quantize(weight, bits, block_size)
