# SPDX-License-Identifier: Apache-2.0
"""GPTQ (Frantar et al., arXiv 2210.17323): rounding that lets later columns make up for earlier ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mobilevlm_ros.export.quantization.round_to_nearest import (
    BITS,
    BLOCK_SIZES,
    QuantizedMatrix,
    best_scales,
    nearest_levels,
    pack,
)

DAMPING = 0.01
"""Added to the Gram matrix's diagonal, as a share of its mean: the paper's."""
_AT_ONCE = 128  # columns whose errors reach the rest in one product; the paper's lazy batches


def gptq(
    weight: NDArray[np.float32],
    gram: NDArray[np.float64],
    bits: int = 4,
    block_size: int = 32,
    damping: float = DAMPING,
) -> QuantizedMatrix:
    """Rounds a matrix f32 [N, K] so that its products with typical inputs change little.

    `gram` f64 [K, K] is the sum of x xᵀ over those inputs. Columns are taken in their order, so that blocks
    stay contiguous; a block's scales are chosen when its first column is reached. The same arguments give
    the same matrix. Raises ValueError like `quantize`, and for weights or a `gram` that are not finite.
    """
    if bits not in BITS or block_size not in BLOCK_SIZES:
        raise ValueError(f"bits must be one of {BITS} and block_size one of {BLOCK_SIZES}")
    if not np.isfinite(weight).all():
        raise ValueError("the weights are not finite numbers")
    rows, columns = weight.shape
    blocks = -(-columns // block_size)
    factor = _inverse_factor(gram, damping)
    left = np.array(weight.T, np.float32, order="C")  # [K, N], what is still to be rounded; a copy
    levels = np.zeros((blocks * block_size, rows), np.float32)
    scales = np.zeros((blocks, rows), np.float16)
    step = max(_AT_ONCE, block_size)
    for start in range(0, columns, step):
        end = min(start + step, columns)
        errors = np.empty((end - start, rows), np.float32)
        for k in range(start, end):
            block, place = divmod(k, block_size)
            if place == 0:
                part = slice(k, min(k + block_size, columns))
                scales[block] = best_scales(left[part].T[:, None], bits)[:, 0]
            scale = scales[block].astype(np.float32)
            levels[k] = nearest_levels(left[k][:, None], scale, bits)[:, 0]
            errors[k - start] = (left[k] - levels[k] * scale) / factor[k, k]
            left[k + 1 : end] -= factor[k, k + 1 : end, None] * errors[k - start]
        left[end:] -= factor[start:end, end:].T @ errors
    grouped = np.ascontiguousarray(levels.T).reshape(rows, blocks, block_size)
    return QuantizedMatrix(
        pack(grouped, bits), np.ascontiguousarray(scales.T), (rows, columns), bits, block_size
    )


def _inverse_factor(gram: NDArray[np.float64], damping: float) -> NDArray[np.float32]:
    """The upper triangular U [K, K] with UᵀU the inverse of the damped Gram matrix."""
    mean = float(np.diagonal(gram).mean())
    if not np.isfinite(gram).all() or mean < 0:
        raise ValueError("the calibration inputs are not finite numbers")
    # H = R Rᵀ with R upper triangular is the Cholesky factor of H read backwards; then U = R⁻¹.
    damped = torch.from_numpy(gram).flip(0, 1)
    damped.diagonal().add_(damping * mean if mean else 1.0)
    root, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise ValueError("the inputs' Gram matrix is not positive definite; use more damping")
    del damped  # a matrix of this size is hundreds of megabytes in a large model
    upper = root.flip(0, 1).float()  # thousands of times better conditioned than H: 32 bits will do
    del root
    factor: NDArray[np.float32] = torch.linalg.solve_triangular(
        upper, torch.eye(len(gram)), upper=True
    ).numpy()
    return factor
