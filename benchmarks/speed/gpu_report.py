# SPDX-License-Identifier: Apache-2.0
"""What gpu.py measures, beside the limits of the card."""

from __future__ import annotations

from dataclasses import dataclass, field

from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig

PROMPT_TOKENS = 164  # an image's 144 and a short question
GOAL = 0.70
"""Fraction of the card's memory bandwidth that decoding should reach."""


@dataclass
class Card:
    """The device and its limits."""

    name: str
    bandwidth: float
    """Bytes per second, from the memory's clock and width; 0 where unknown."""
    copy_bandwidth: float = 0.0
    """Bytes per second read and written by a large copy on the device."""
    matrix_rate: float = 0.0
    """16-bit floating-point operations per second of a large matrix product."""


@dataclass
class Row:
    """One engine on one model. Times in milliseconds, medians."""

    model: str
    engine: str
    difference: float
    """Greatest difference of logits from the exact ones, of their greatest value."""
    same_tokens: str
    encode_ms: float
    prefill_ms: float
    decode_ms: float
    decode_bytes: int
    """Bytes that a decoded token must read: the weights, and the cache's tokens."""
    encode_flops: float
    bandwidth_fraction: float = 0.0
    matrix_fraction: float = 0.0
    problem: str = ""

    def rate(self, card: Card) -> None:
        """Fills in the fractions."""
        if self.decode_ms and card.bandwidth:
            self.bandwidth_fraction = self.decode_bytes / (self.decode_ms / 1e3) / card.bandwidth
        if self.encode_ms and card.matrix_rate:
            self.matrix_fraction = self.encode_flops / (self.encode_ms / 1e3) / card.matrix_rate


@dataclass
class Report:
    """All of it."""

    card: Card
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The table, with the limits it is measured by."""
        card = self.card
        lines = [
            f"# {card.name}",
            "",
            f"Memory {card.bandwidth / 1e9:.0f} GB/s by clock and width, "
            f"{card.copy_bandwidth / 1e9:.0f} GB/s in a copy; "
            f"{card.matrix_rate / 1e12:.1f} TFLOP/s in a large 16-bit product. "
            f"Prompts of {PROMPT_TOKENS} tokens. Goal in decoding: {GOAL:.0%} of the memory bandwidth.",
            "",
            "| model | engine | difference | same tokens | encode, ms | of matrix rate | prefill, ms "
            "| decode, ms | tokens/s | of bandwidth |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            if row.problem:
                lines.append(f"| {row.model} | {row.engine} | {row.problem} ||||||||")
                continue
            lines.append(
                f"| {row.model} | {row.engine} | {row.difference:.1e} | {row.same_tokens} "
                f"| {row.encode_ms:.2f} | {row.matrix_fraction:.0%} | {row.prefill_ms:.2f} "
                f"| {row.decode_ms:.3f} | {1e3 / row.decode_ms:.1f} | {row.bandwidth_fraction:.0%} |"
            )
        return "\n".join([*lines, "", *(f"* {note}" for note in self.notes)]) + "\n"


def decoder_bytes(config: LanguageConfig, context: int, weight_bytes: float) -> int:
    """Bytes read per decoded token: every matrix and the head once, `context` tokens' f16 keys and values."""
    c, kv = config, config.num_key_value_heads * config.head_dim
    matrices = c.num_hidden_layers * c.hidden_size * (2 * c.hidden_size + 2 * kv + 3 * c.intermediate_size)
    cache = 2 * 2 * c.num_hidden_layers * kv * context
    return int((matrices + c.hidden_size * c.vocab_size) * weight_bytes + cache)


def encoder_flops(config: MobileVLMConfig) -> float:
    """Operations of the tower's matrix products for one image, 2 per multiplication; no projector."""
    v = config.vision
    tokens, width = v.grid**2 + 1, v.hidden_size
    layer = tokens * width * (4 * width + 2 * v.intermediate_size) + 2 * tokens**2 * width
    patches = v.grid**2 * 3 * v.patch_size**2 * width
    return 2.0 * (config.num_vision_layers * layer + patches)
