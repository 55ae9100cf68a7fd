# SPDX-License-Identifier: Apache-2.0
"""The token embeddings of a bundle, in memory of our own."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.bundle import EMBEDDINGS, Bundle
from mobilevlm_ros.errors import BundleError


def read_embedding_table(bundle: Bundle) -> NDArray[np.floating[Any]]:
    """The table [V, H] as it is stored, f16 or f32. Raises BundleError."""
    manifest = bundle.manifest
    shape = (manifest.vocab_size, manifest.hidden_size)
    with bundle.reading(EMBEDDINGS) as stream:
        try:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("it has another version")
            found, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        except Exception as error:  # the header is Python source
            raise BundleError(f"bundle {bundle.path}: {EMBEDDINGS} cannot be read: {error}") from error
        # Checked before anything is allocated.
        rest = os.fstat(stream.fileno()).st_size - stream.tell()
        if found != shape or fortran_order or dtype not in (np.float16, np.float32):
            raise BundleError(
                f"bundle {bundle.path}: {EMBEDDINGS} holds {dtype} {list(found)}, where {list(shape)} floats "
                "belong; build it again with `mobilevlm build`"
            )
        if rest != shape[0] * shape[1] * dtype.itemsize:
            raise BundleError(
                f"bundle {bundle.path}: {EMBEDDINGS} is truncated; build it again with `mobilevlm build`"
            )
        table: NDArray[np.floating[Any]] = np.fromfile(stream, dtype, shape[0] * shape[1]).reshape(shape)
        return table
