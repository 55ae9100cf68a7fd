# SPDX-License-Identifier: Apache-2.0
"""Weights that can be read and cannot be right: absent content that looks like content."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.small_file import LFS_POINTER

UNFINISHED = (".aria2", ".incomplete", ".part", ".partial", ".crdownload", ".download", ".tmp")
"""Endings of the files that aria2, huggingface_hub, curl, wget wrappers and browsers keep beside a file whose
download has not ended."""

_LARGEST, _SMALLEST = 1e4, 1e-8
"""Bounds of a matrix's largest weight. Those of the released models lie between 0.05 and 100."""
_HOLE = 3, 1024
"""Rows of zeros in a row, and the weights in them, from which on they are a hole; training makes none."""
_UNUSED_ROWS = 256
"""As many zero rows an embedding table may have: those of tokens that pad the vocabulary."""


def check_tensor(tensor: Tensor, name: str, where: Path) -> Tensor:
    """The tensor itself.

    Raises CheckpointError when a matrix or a kernel is all zero, constant or of an absurd scale, or has a
    hole of zeros, as a download leaves that was cut or skipped a piece. Vectors pass: biases may be zero
    and norms one.
    """
    if tensor.dim() < 2 or tensor.numel() < 2 or not tensor.is_floating_point():
        return tensor
    least, most = (float(value) for value in torch.aminmax(tensor))
    size = max(abs(least), abs(most))
    if not math.isfinite(size):
        return tensor  # NaN and infinity are refused where weights are used
    if least == most:
        problem = "is all zero" if size == 0 else f"is {least:g} throughout"
    elif size > _LARGEST or size < _SMALLEST:
        problem = f"has a largest weight of {size:.3g}, which no trained model has"
    elif hole := _hole(tensor.reshape(len(tensor), -1), name):
        problem = f"has {hole} rows of zeros in a row"
    else:
        return tensor
    raise CheckpointError(f"{where}: {name} {problem}; a download may have left a part out: copy it again")


def check_beginning(path: Path) -> None:
    """Raises CheckpointError for a file of weights that is no regular file, is empty, only points to the
    content (Git LFS), or whose download has not ended, as another file beside it says.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is no regular file; give the directory of a copied checkpoint")
    try:
        with path.open("rb") as stream:
            beginning = stream.read(len(LFS_POINTER))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    for beside in (path.with_name(path.name + ending) for ending in UNFINISHED):
        if beside.is_file():
            raise CheckpointError(
                f"{beside} says that {path.name} is not downloaded whole; end the download, or remove "
                f"{beside.name} if it has ended"
            )
    if not beginning:
        raise CheckpointError(f"{path} is empty; copy it again")
    if beginning == LFS_POINTER:
        raise CheckpointError(f"{path} only points to the weights; fetch them with `git lfs pull`")


def _hole(rows: Tensor, name: str) -> int:
    """The longest run of zero rows, if it is a hole; else 0."""
    zero = ~(rows != 0).any(dim=1)
    if not bool(zero.any()):
        return 0
    flips = torch.diff(zero.to(torch.int8), prepend=zero.new_zeros(1, dtype=torch.int8))
    ends = torch.cat((torch.nonzero(flips == -1).flatten(), torch.tensor([len(zero)])))
    starts = torch.nonzero(flips == 1).flatten()
    longest = int((ends[: len(starts)] - starts).max())
    fewest, weights = _HOLE
    if name.endswith(("embed_tokens.weight", "lm_head.weight", "token_embd.weight", "output.weight")):
        fewest = _UNUSED_ROWS + 1 if len(zero) > 2 * _UNUSED_ROWS else len(zero) // 4 + 1
    return longest if longest >= fewest and longest * rows.shape[1] >= weights else 0
