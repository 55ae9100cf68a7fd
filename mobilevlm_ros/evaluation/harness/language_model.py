# SPDX-License-Identifier: Apache-2.0
"""The language model inside lm-evaluation-harness, on whatever backend serves it (needs `lm_eval`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from numpy.typing import NDArray
from tqdm import tqdm

from mobilevlm_ros.engine.logits import log_softmax
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.cache.prefill import PrefillResult
from mobilevlm_ros.inference.generation.decoding import AnswerDecoder, decode
from mobilevlm_ros.inference.steps import finish
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import SamplingParams

MAX_GEN_TOKENS = 256  # lm-eval's default where a task says none
Pair = tuple[tuple[str, str], list[int], list[int]]


class LanguageModel(TemplateLM):
    """MobileLLaMA inside a MobileVLM: text only, no picture, no chat template.

    Args:
        runtime: a bundle or checkpoint.
        add_bos: begin every context with <s>, as LLaMA's tokenizer does by default.
    """

    def __init__(self, runtime: Runtime, add_bos: bool = True) -> None:
        super().__init__()
        self._runtime = runtime
        self._language, self._tokens = runtime.language, runtime.tokenizer
        self._add_bos = add_bos
        self.max_length = runtime.language.max_length

    @property
    def eot_token_id(self) -> int:
        """</s>."""
        return self._tokens.eos_id

    @property
    def prefix_token_id(self) -> int:
        """<s>, which stands for an empty context."""
        return self._tokens.bos_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text; <s> in front as `add_bos` says, unless told otherwise."""
        bos = self._add_bos if add_special_tokens is None else add_special_tokens
        return self._tokens.encode(string, bos=bos and not string.startswith("<s>"))

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Sum of log-probabilities of each continuation, and whether greedy decoding would write it.

        Requests with the same context (the choices of a question) read it once.
        """
        results: list[tuple[float, bool]] = []
        with tqdm(total=len(requests), disable=disable_tqdm or None, desc="loglikelihood") as bar:
            for _context, group in groupby(requests, key=lambda request: tuple(request[1])):
                pairs = [(context, continuation) for _texts, context, continuation in group]
                results += self._scores(pairs)
                bar.update(len(pairs))
        return results

    def _scores(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        context = pairs[0][0]
        longest = max(len(continuation) for _, continuation in pairs)
        # The last token needs no reading; what does not fit is cut from the left, as lm-eval does.
        context = context[-(self.max_length + 1 - longest) :] if longest <= self.max_length else context[-1:]
        cache = self._language.new_cache(1, min(self.max_length, len(context) + longest))
        if len(context) > 1:
            self._language.forward(self._embed(context[:-1]), cache, num_logits=0)
        results = []
        for _, continuation in pairs:
            kept = continuation[-self.max_length :]
            rest = self._embed([context[-1], *kept[:-1]])[0]
            (logits,) = self._language.branch([rest], cache, num_logits=len(kept))
            logs = log_softmax(logits)
            chosen = logs[np.arange(len(kept)), kept]
            results.append((float(chosen.sum()), bool((logits.argmax(-1) == np.array(kept)).all())))
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows of the context."""
        totals = []
        for request in requests:
            (text,) = request.args
            windows = map(
                make_disjoint_window,
                get_rolling_token_windows(
                    token_list=self.tok_encode(text, add_special_tokens=False),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length - 1,
                    context_len=1,
                ),
            )
            pairs: list[Pair] = [(("", ""), context, continuation) for context, continuation in windows]
            totals.append(sum(score for score, _ in self._loglikelihood_tokens(pairs, disable_tqdm=True)))
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Text after each context, greedy or sampled, until one of the request's texts appears."""
        texts = []
        for request in tqdm(requests, disable=disable_tqdm or None, desc="generate"):
            context, options = request.args
            until = options.get("until") or []
            sampled = bool(options.get("do_sample")) and float(options.get("temperature") or 0) > 0
            sampling = SamplingParams(
                max_tokens=int(options.get("max_gen_toks") or MAX_GEN_TOKENS),
                temperature=float(options["temperature"]) if sampled else 0.0,
                stop=tuple([until] if isinstance(until, str) else until),
            )
            ids = self.tok_encode(context)[
                -(self.max_length - min(sampling.max_tokens, self.max_length - 1)) :
            ]
            texts.append(self._generate(ids, sampling))
        return texts

    def _generate(self, ids: list[int], sampling: SamplingParams) -> str:
        limit = min(sampling.max_tokens, self.max_length - len(ids))
        cache = self._language.new_cache(1, len(ids) + limit)
        logits = self._language.forward(self._embed(ids), cache, num_logits=1)[0, -1]
        decoder = AnswerDecoder(
            sampling, self._tokens, frozenset(self._runtime.bundle.manifest.stop_ids), limit
        )
        steps = decode(
            PrefillResult(tuple(ids), cache, logits, len(ids), 0), decoder, self._language, Stopwatch()
        )
        return finish(steps).text

    def _embed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self._language.embed(np.array(ids, np.int64))[None]
