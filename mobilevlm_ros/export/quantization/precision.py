# SPDX-License-Identifier: Apache-2.0
"""How the decoder's matrices are stored: bits, block size, and which matrices differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.export.quantization.round_to_nearest import BITS, BLOCK_SIZES
from mobilevlm_ros.model.config import LanguageConfig


@dataclass(frozen=True)
class DecoderPrecision:
    """How the decoder's matrices are stored. Norms, attention and the KV cache are always f32."""

    bits: int = 4
    """4 or 8 (block-quantised), or 32 (plain f32)."""
    block_size: int = 32
    """Weights that share a scale: 32 is more accurate, 128 smaller and a little faster."""
    overrides: Mapping[str, int] = field(default_factory=dict)
    """Bits for matrices whose name matches a pattern, e.g. {'lm_head': 8, '*.down_proj': 8}. Names are the
    checkpoint's without `.weight`; fused projections are `*.qkv_proj` and `*.gate_up_proj`."""
    accuracy_level: int = 4
    """MatMulNBits' compute type: 4 rounds activations to 8 bits (3.5 to 4 times faster decode), 0 is f32."""

    def __post_init__(self) -> None:
        for bits in (self.bits, *self.overrides.values()):
            if bits not in (*BITS, 32):
                raise ValueError(f"bits must be 4, 8 or 32, not {bits}")
        if self.block_size not in BLOCK_SIZES:
            raise ValueError(f"block size must be one of {BLOCK_SIZES}, not {self.block_size}")

    def check(self, config: LanguageConfig) -> None:
        """Raises OptionError when a pattern of `overrides` matches no matrix of such a model."""
        parts = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
        layers = range(config.num_hidden_layers)
        names = ["lm_head", *(f"model.layers.{i}.{part}" for i in layers for part in parts)]
        for pattern in self.overrides:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise OptionError(
                    f"no matrix is called {pattern!r}; they are lm_head and, for each layer, "
                    f"{', '.join(names[1:5])}: write for example '*.down_proj'"
                )

    def bits_of(self, name: str) -> int:
        """Bits of the matrix called `name`."""
        for pattern, bits in self.overrides.items():
            if fnmatchcase(name, pattern):
                return bits
        return self.bits

    @property
    def least_bits(self) -> int:
        """Of any matrix."""
        return min(self.bits, *self.overrides.values(), 32)

    @property
    def least_onnxruntime(self) -> str:
        """The oldest ONNX Runtime that runs such a graph: 8-bit MatMulNBits came with 1.22."""
        return "1.22" if 8 in (self.bits, *self.overrides.values()) else "1.20"
