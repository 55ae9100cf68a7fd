# SPDX-License-Identifier: Apache-2.0
"""GPTQ (Frantar et al., arXiv 2210.17323): rounding that lets later columns make up for earlier ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobilevlm_ros.export.quantization.round_to_nearest import (
    BITS,
    BLOCK_SIZES,
    ROWS_AT_ONCE,
    QuantizedMatrix,
    best_scales,
    pack,
)

DAMPING = 0.1
"""Added to the Gram matrix's diagonal, as a share of its mean. The paper has 0.01; more leans less on what
the calibration happened to show, and does a little better on other text."""
_ONE_BY_ONE = 16
"""Columns that are rounded one after the other; what they owe the others reaches those in one product."""


def gptq(
    weight: NDArray[np.float32],
    gram: NDArray[np.floating[Any]],
    bits: int = 4,
    block_size: int = 32,
    damping: float = DAMPING,
) -> QuantizedMatrix:
    """Rounds a matrix f32 [N, K] so that its products with typical inputs change little.

    `gram` [K, K] is the sum of x xᵀ over those inputs. Columns with the largest inputs are rounded first,
    while many others are left to make up for them (the authors' `act_order`); blocks stay contiguous: their
    scales are chosen before (`static_groups`), by errors weighed with what no other column can mend. The same
    arguments give the same matrix. Raises ValueError like `quantize`, and for weights or a `gram` that are
    not finite.

    With the Gram matrix H = L Lᵀ the loss of a row's errors e is |Lᵀ e|², whose element j needs only e_j and
    later ones. So, from the last column to the first, each is rounded to where its own element is least:
    the authors' algorithm without the inverse of H (Chen et al., arXiv 2507.18553).
    """
    if bits not in BITS or block_size not in BLOCK_SIZES:
        raise ValueError(f"bits must be one of {BITS} and block_size one of {BLOCK_SIZES}")
    if not np.isfinite(weight).all():
        raise ValueError("the weights are not finite numbers")
    rows, columns = weight.shape
    order = np.argsort(np.diagonal(gram), kind="stable")
    factor = _cholesky(gram, order, damping)
    importance = np.empty(columns, np.float32)
    importance[order] = factor.diagonal().square().numpy()
    scales = _scales(weight, bits, block_size, importance)
    levels = np.zeros((scales.shape[0] * block_size, rows), np.float32)
    levels[order] = round_columns(weight, factor, order, torch.from_numpy(scales), bits, block_size)
    grouped = np.ascontiguousarray(levels.T).reshape(rows, -1, block_size)
    return QuantizedMatrix(
        pack(grouped, bits), np.ascontiguousarray(scales.T), (rows, columns), bits, block_size
    )


def round_columns(
    weight: NDArray[np.float32],
    factor: Tensor,
    order: NDArray[np.intp],
    scales: Tensor,
    bits: int,
    block_size: int,
) -> NDArray[np.float32]:
    """Levels f32 [K, N] of a matrix f32 [N, K], its columns in `order`, the last of which is rounded first.

    `factor` f32 [K, K] is the Cholesky factor of the Gram matrix in that order, `scales` f16 [blocks, N].
    """
    half = 2 ** (bits - 1)
    share = factor / factor.diagonal()  # of column j's aim, that an error of column i > j takes
    aims = torch.from_numpy(np.ascontiguousarray(weight.T[order]))  # [K, N], what is to be rounded
    errors = aims.clone()  # once rounded: how far the weight is from its level
    levels = torch.empty_like(aims)
    blocks = torch.from_numpy(order // block_size)

    def visit(start: int, end: int) -> None:
        if end - start > _ONE_BY_ONE:
            middle = (start + end) // 2
            visit(middle, end)
            aims[start:middle].addmm_(share[middle:end, start:middle].T, errors[middle:end])
            visit(start, middle)
            return
        for k in range(end - 1, start - 1, -1):
            scale = scales[blocks[k]].float()
            levels[k] = torch.where(scale == 0, scale, aims[k] / scale).round_().clamp_(-half, half - 1)
            errors[k] -= levels[k] * scale
            aims[start:k].addr_(share[k, start:k], errors[k])

    visit(0, len(aims))
    found: NDArray[np.float32] = levels.numpy()
    return found


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


def _cholesky(gram: NDArray[np.floating[Any]], order: NDArray[np.intp], damping: float) -> Tensor:
    """The lower triangular L f32 [K, K] with L Lᵀ the damped Gram matrix, rows and columns in `order`."""
    mean = float(np.diagonal(gram).mean())
    if not np.isfinite(mean) or mean < 0 or not np.isfinite(gram).all():
        raise ValueError("the calibration inputs are not finite numbers")
    index = torch.from_numpy(order)
    picked = torch.from_numpy(gram)[index][:, index]
    picked /= mean or 1.0  # the scale of the inputs is of no consequence
    picked.diagonal().add_(damping if mean else 1.0)
    # In 32 bits, and where rounding makes that fail, in 64, which takes twice the time and memory.
    for kind in (torch.float32, torch.float64):
        factor, failed = torch.linalg.cholesky_ex(picked.to(kind))
        if not failed and factor.isfinite().all():
            return factor.float()
    raise ValueError("the inputs' Gram matrix is not positive definite; use more damping")
