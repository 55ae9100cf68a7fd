# SPDX-License-Identifier: Apache-2.0
"""GPTQ (Frantar et al., arXiv 2210.17323): rounding that lets later columns make up for earlier ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mobilevlm_ros.export.quantization.round_to_nearest import (
    BITS,
    BLOCK_SIZES,
    ROWS_AT_ONCE,
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

    `gram` f64 [K, K] is the sum of x xᵀ over those inputs. Columns with the largest inputs are rounded first,
    while many others are left to make up for them (the authors' `act_order`); blocks stay contiguous: their
    scales are chosen before (`static_groups`), by errors weighed with what GPTQ cannot mend. The same
    arguments give the same matrix. Raises ValueError like `quantize`, and for weights or a `gram` that are
    not finite.
    """
    if bits not in BITS or block_size not in BLOCK_SIZES:
        raise ValueError(f"bits must be one of {BITS} and block_size one of {BLOCK_SIZES}")
    if not np.isfinite(weight).all():
        raise ValueError("the weights are not finite numbers")
    rows, columns = weight.shape
    order = np.argsort(-np.diagonal(gram), kind="stable")
    factor = _inverse_factor(gram, order, damping)
    # 1 / diag(H⁻¹): the loss that an error in one column leaves when all others make up for it.
    importance = np.empty(columns, np.float32)
    importance[order] = 1 / np.einsum("kj,kj->j", factor, factor)
    scales = _scales(weight, bits, block_size, importance)
    left = np.ascontiguousarray(weight.T[order], np.float32)  # [K, N], what is still to be rounded
    levels = np.zeros((scales.shape[0] * block_size, rows), np.float32)
    for start in range(0, columns, _AT_ONCE):
        end = min(start + _AT_ONCE, columns)
        errors = np.empty((end - start, rows), np.float32)
        for k in range(start, end):
            column = order[k]
            scale = scales[column // block_size].astype(np.float32)
            levels[column] = nearest_levels(left[k][:, None], scale, bits)[:, 0]
            errors[k - start] = (left[k] - levels[column] * scale) / factor[k, k]
            left[k + 1 : end] -= factor[k, k + 1 : end, None] * errors[k - start]
        left[end:] -= factor[start:end, end:].T @ errors
    grouped = np.ascontiguousarray(levels.T).reshape(rows, -1, block_size)
    return QuantizedMatrix(
        pack(grouped, bits), np.ascontiguousarray(scales.T), (rows, columns), bits, block_size
    )


def _scales(
    weight: NDArray[np.float32], bits: int, block_size: int, importance: NDArray[np.float32]
) -> NDArray[np.float16]:
    """Scales f16 [blocks, N] of a matrix f32 [N, K]; `importance` f32 [K] weighs its columns' errors."""
    rows, columns = weight.shape
    blocks = -(-columns // block_size)
    weights = np.zeros(blocks * block_size, np.float32)
    weights[:columns] = importance
    scales = np.empty((blocks, rows), np.float16)
    step = max(1, ROWS_AT_ONCE // (blocks * block_size))
    for start in range(0, rows, step):
        part = np.zeros((min(step, rows - start), blocks * block_size), np.float32)
        part[:, :columns] = weight[start : start + step]
        chosen = best_scales(part.reshape(len(part), blocks, -1), bits, weights.reshape(blocks, -1))
        scales[:, start : start + step] = chosen.T
    return scales


def _inverse_factor(
    gram: NDArray[np.float64], order: NDArray[np.intp], damping: float
) -> NDArray[np.float32]:
    """The upper triangular U [K, K] with UᵀU the inverse of the damped Gram matrix, columns in `order`."""
    mean = float(np.diagonal(gram).mean())
    if not np.isfinite(gram).all() or mean < 0:
        raise ValueError("the calibration inputs are not finite numbers")
    # H = R Rᵀ with R upper triangular is the Cholesky factor of H read backwards; then U = R⁻¹.
    damped = torch.from_numpy(gram[np.ix_(order[::-1], order[::-1])])
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
