# SPDX-License-Identifier: Apache-2.0
"""Named ways of storing a language model in 4 bits: docs/bundles.md has what each costs and gives."""

from __future__ import annotations

from typing import Any, NamedTuple

from mobilevlm_ros.export.quantization.precision import DecoderPrecision


class Preset(NamedTuple):
    """Blocks and exceptions; the output layer is a twentieth of a 1.7B model, and 4 bits hurt it most."""

    block_size: int
    overrides: dict[str, int]

    def precision(self, **changes: Any) -> DecoderPrecision:
        """This, but for `changes`, fields of DecoderPrecision; what matches their overrides is theirs."""
        overrides = dict(changes.pop("overrides", {}))
        for pattern, bits in self.overrides.items():
            overrides.setdefault(pattern, bits)  # behind: the first pattern that matches counts
        return DecoderPrecision(**{"block_size": self.block_size, **changes, "overrides": overrides})


PRESETS = {
    "accurate": Preset(32, {"lm_head": 8}),
    "balanced": Preset(64, {"lm_head": 8}),
    "fast": Preset(128, {"lm_head": 8}),
}
"""By name. Decoding becomes faster and the bundle smaller from one to the next; answers suffer more."""
DEFAULT = "accurate"
