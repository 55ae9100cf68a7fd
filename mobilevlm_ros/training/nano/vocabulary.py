# SPDX-License-Identifier: Apache-2.0
"""Trains nano's SentencePiece tokenizer on the sentences of its world, with LLaMA's settings."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sentencepiece

from mobilevlm_ros.files.atomic import write_file
from mobilevlm_ros.processing.prompt_template import TEMPLATES
from mobilevlm_ros.simulation.questions import FAMILIES, ask
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

VOCAB_SIZE = 704


def train_tokenizer(output: Path, *, scenes: int = 3000, vocab_size: int = VOCAB_SIZE) -> Path:
    """Write `output` (a tokenizer.model): BPE with byte fallback, <unk>=0 <s>=1 </s>=2, as LLaMA's.

    Every text can be encoded; words of the simulated world take one or two pieces. Deterministic.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(scenes),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        allow_whitespace_only_pieces=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    write_file(output, model.getvalue(), overwrite=True)
    return output


def _sentences(scenes: int) -> Iterator[str]:
    rng = np.random.default_rng(7)
    for _ in range(scenes):  # every prompt opens with it, so its words deserve whole pieces
        yield TEMPLATES["v1"].opening
    letters = "abcdefghijklmnopqrstuvwxyz"
    yield f"{letters} {letters.upper()} 0123456789 . , ? ! ' \" : ; - ( ) / % & + = < >"
    for seed in range(scenes):
        observation = observe(sample_scene(seed), 0.0, 160, 120)
        for family in FAMILIES:
            exchange = ask(observation, family, rng)
            if exchange is not None:
                yield from f"USER: {exchange.question} ASSISTANT: {exchange.answer}".split("\n")
