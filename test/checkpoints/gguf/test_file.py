# SPDX-License-Identifier: Apache-2.0
"""Whatever the bytes of a GGUF file are, they are read or refused."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import CheckpointError

gguf = pytest.importorskip("gguf", reason="comes with the extra `build`")

from mobilevlm_ros.checkpoints.gguf.file import GGUFFile  # noqa: E402 (imports gguf)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> bytes:
    """A GGUF file of a few hundred bytes: reading all of it is quick."""
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", "a"])
    writer.add_token_scores([0.0, 0.0, 0.0, -1.0])
    writer.add_context_length(2048)
    writer.add_tensor("token_embd.weight", np.ones((4, 8), np.float16))
    writer.add_tensor("blk.0.attn_q.weight", np.ones((8, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_cut_or_garbled_file_is_refused_or_read(small, tmp_path, data):
    content = bytearray(small)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.gguf"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(CheckpointError):
        file = GGUFFile(path)
        for name in file.tensors:
            file.array(name)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_other_bytes_are_refused(tmp_path, content):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not a GGUF file, or is damaged|is empty; copy it again"):
        GGUFFile(path)
