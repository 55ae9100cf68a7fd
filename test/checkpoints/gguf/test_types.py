# SPDX-License-Identifier: Apache-2.0
"""Every type of tensor in GGUF files: read as llama.cpp reads it, or refused before the long work.

test/data/gguf/types.gguf holds 256 random weights in each type, quantised by ggml 0.25.3
(ggml_quantize_chunk), and beside them what ggml's own `to_float` makes of those bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.source import open_source

gguf = pytest.importorskip("gguf", reason="comes with the extra `build`")

from mobilevlm_ros.checkpoints.gguf.file import GGUFFile  # noqa: E402
from mobilevlm_ros.checkpoints.gguf.writer import export_gguf  # noqa: E402 (imports gguf)

TYPES = Path(__file__).parents[2] / "data" / "gguf" / "types.gguf"
READ = [tensor.name for tensor in gguf.GGUFReader(TYPES).tensors if not tensor.name.endswith(".f32")]
ADVICE = "write it anew with llama.cpp's `llama-quantize --allow-requantize FILE NEW_FILE F16`"


@pytest.fixture(scope="module")
def files(parity, tmp_path_factory) -> tuple[Path, Path]:
    language, vision = export_gguf(parity / "ckpt" / "tiny-ldpnetv2", tmp_path_factory.mktemp("gguf"))
    return language, vision


def test_all_types_are_there():
    assert len(READ) == 21
    assert {"Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"} <= set(READ)


@pytest.mark.parametrize("kind", READ)
def test_values_are_those_of_llama_cpp(kind):
    file = GGUFFile(TYPES)
    assert file.tensors[kind].tensor_type.name == kind
    np.testing.assert_array_equal(file.array(kind), file.array(f"{kind}.f32"))


def test_a_type_that_gguf_cannot_dequantise_is_refused_by_name(tmp_path):
    path = tmp_path / "integers.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_q.weight", np.ones((2, 8), np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError) as caught:
        GGUFFile(path).array("blk.0.attn_q.weight")
    assert f"{path}: blk.0.attn_q.weight is of type I8, which gguf" in str(caught.value)
    assert ADVICE in str(caught.value)


def with_type(path: Path, name: str, number: int) -> bytes:
    """The file's bytes, with another type number in the description of one tensor."""
    content = bytearray(path.read_bytes())
    field = next(tensor.field for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    at = field.offset + sum(part.nbytes for part in field.parts[:4])
    content[at : at + 4] = number.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize(
    ("number", "said"), [(28, "is of type F64, which gguf"), (999, "is of type number 999, which gguf")]
)
def test_it_is_refused_when_the_files_are_opened(files, tmp_path, number, said):
    language, vision = files
    path = tmp_path / "language.gguf"
    # The last tensor of all would be reached only at the end of the build.
    last = list(GGUFFile(language).tensors)[-1]
    path.write_bytes(with_type(language, last, number) + bytes(1 << 20))
    with pytest.raises(CheckpointError) as caught:
        open_source(path, mmproj=vision)
    assert f"{path}: {last} {said}" in str(caught.value)
    assert ADVICE in str(caught.value)


def test_tensors_that_a_mobilellama_has_not_are_not_passed_over(files, tmp_path):
    language, vision = files
    reader = gguf.GGUFReader(language)
    path = tmp_path / "biased.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture")):
            kinds = value.types
            writer.add_key_value(name, value.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.add_tensor("blk.0.attn_q.bias", np.ones(64, np.float32))
    writer.add_tensor("blk.0.attn_rot_embd.weight", np.ones(8, np.float32))  # of old converters
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"tensors 1 foreign: blk\.0\.attn_q\.bias$"):
        open_source(path, mmproj=vision)


def test_the_other_byte_order_is_refused(tmp_path):
    path = tmp_path / "big.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("blk.0.attn_q.weight", np.ones((2, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"the other byte order .* `gguf-convert-endian FILE native`"):
        GGUFFile(path)
