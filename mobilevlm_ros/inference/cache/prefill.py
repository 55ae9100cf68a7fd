# SPDX-License-Identifier: Apache-2.0
"""Reads a prompt into the language model: encodes what was not seen and prefills what was not read before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.bundle import PREFILL
from mobilevlm_ros.engine.checks import check_finite
from mobilevlm_ros.engine.interfaces import KVCache, LanguageEngine, VisionEngine
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.cache.prefix_cache import PrefixCache
from mobilevlm_ros.inference.prompt.conversation import PromptTokens, cache_points, common, positions
from mobilevlm_ros.inference.prompt.image_views import ImageInput
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.validate import MAX_FRAMES

KEPT_IMAGES = MAX_FRAMES
"""Embeddings kept, about 1.2 MB for each image at 1.4B: the same picture under another system prompt."""

PREFILL_CHUNK = 72
"""Positions prefilled between two boundaries on a CPU: at 1.4B on two cores a cancel is noticed within 0.8 s,
for 1 % more time than reading image and question in one run takes (48: 0.5 s for 4 %)."""

PREFILL_CHUNK_INT8 = 160
"""The same where the bundle has an 8-bit graph to read with: it is faster with the whole image in one run."""

PREFILL_CHUNK_GPU = 1024
"""The same on a GPU, which reads a whole prompt in less time than a CPU one run."""


def prefill_chunk(runtime: Runtime) -> int:
    """Most positions that one call of this runtime's decoder should read."""
    if any(name in runtime.backend_name for name in ("cuda", "tensorrt")):
        return PREFILL_CHUNK_GPU
    return PREFILL_CHUNK_INT8 if PREFILL in runtime.bundle.manifest.files else PREFILL_CHUNK


@dataclass
class SequenceCache:
    """KV of a conversation so far.

    Attributes:
        prompt_tokens: what the first `length` positions of the cache hold.
        cache: may hold more while somebody extends it.
        length: positions.
    """

    prompt_tokens: PromptTokens
    cache: KVCache
    length: int

    def cut(self, prompt_tokens: int, length: int) -> None:
        """Forget what follows the first prompt tokens, which take `length` positions."""
        self.prompt_tokens, self.length = self.prompt_tokens[:prompt_tokens], length
        self.restore()

    def restore(self) -> None:
        """Take back what was added to the cache."""
        self.cache.truncate(self.length)


@dataclass
class PrefillResult:
    """A prompt that the model has read.

    Attributes:
        prompt_tokens: the prompt.
        cache: KV of it.
        logits: f32[V] after its last token.
        tokens: positions it takes.
        reused: how many of them were not computed now.
    """

    prompt_tokens: PromptTokens
    cache: KVCache
    logits: NDArray[np.float32]
    tokens: int
    reused: int


class Prefiller:
    """The model's memory of pictures and prompts.

    Args:
        vision: the encoder.
        language: the decoder.
        budget: bytes of KV to keep for system prompts and images together; 0 keeps nothing.
        chunk: most positions that one call of the decoder reads.
    """

    def __init__(self, vision: VisionEngine, language: LanguageEngine, budget: int, chunk: int) -> None:
        self.vision = vision
        self.language = language
        self.chunk = chunk
        self._kept: PrefixCache[PromptTokens] = PrefixCache(budget)
        self._images: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    def positions(self, prompt_tokens: PromptTokens) -> int:
        """Positions of the context that they take."""
        return positions(prompt_tokens, self.vision.num_tokens)

    @property
    def nbytes(self) -> int:
        """Bytes of the kept prefixes; at most the budget."""
        return self._kept.nbytes

    @property
    def pictures(self) -> int:
        """How many pictures' embeddings are kept; at most KEPT_IMAGES."""
        return len(self._images)

    def clear(self) -> None:
        """Forget every prefix and picture."""
        self._kept.clear()
        self._images.clear()

    def read(
        self,
        prompt_tokens: PromptTokens,
        views: Sequence[ImageInput],
        reserve: int,
        watch: Stopwatch,
        sequence: SequenceCache | None = None,
        spare: int = 0,
    ) -> Generator[str, None, PrefillResult]:
        """Read a prompt, yielding '' after each image and run.

        Args:
            prompt_tokens: the prompt; it ends with text.
            views: its images, in order.
            reserve: positions that the cache shall have left for an answer, as far as the context allows.
            watch: gets laps of 'encode' and 'prefill'.
            sequence: of a conversation. Where it holds more of the prompt than any kept prefix does, its
                cache is extended and becomes the result's; the sequence is cut to what is still true, and has
                to be restored when the result is not used.
            spare: positions that a new cache gets besides, for prompts that go on where this one ends.
        """
        needed = min(self.language.max_length, self.positions(prompt_tokens) + reserve)
        capacity = min(self.language.max_length, needed + spare)
        start, known = self._longest(prompt_tokens)
        shared = 0
        if sequence is not None:
            shared = min(common(sequence.prompt_tokens, prompt_tokens), len(prompt_tokens) - 1)
        if sequence is not None and shared > start:
            start, cache = shared, sequence.cache
            sequence.cut(start, self.positions(prompt_tokens[:start]))
            if cache.capacity < needed:
                cache = cache.copy(capacity=capacity)
        else:
            cache = self._begun(prompt_tokens[:start], known, capacity)
        reused = cache.length
        logits = yield from self._extend(cache, prompt_tokens, start, views, watch)
        assert logits is not None  # a prompt ends with text, and its last token is never reused
        return PrefillResult(prompt_tokens, cache, logits, cache.length, reused)

    def read_prefix(
        self, prompt_tokens: PromptTokens, views: Sequence[ImageInput], reserve: int, watch: Stopwatch
    ) -> Generator[str, None, tuple[KVCache, int]]:
        """Read what several prompts begin with, up to and with their last image, as `read` does.

        Returns its KV, and how many of its positions were known.
        """
        capacity = min(self.language.max_length, self.positions(prompt_tokens) + reserve)
        start, known = self._longest(prompt_tokens)
        cache = self._begun(prompt_tokens[:start], known, capacity)
        reused = cache.length
        yield from self._extend(cache, prompt_tokens, start, views, watch)
        return cache, reused

    def _longest(self, prompt_tokens: PromptTokens) -> tuple[int, KVCache | None]:
        """The longest kept prefix: its length in prompt tokens, and its KV (not to be extended), which may
        hold more behind it.
        """
        for point in reversed(cache_points(prompt_tokens)):
            known = self._kept.get(prompt_tokens[:point])
            if known is not None:
                return point, known
        return 0, None

    def _begun(self, prefix: PromptTokens, known: KVCache | None, capacity: int) -> KVCache:
        """A new cache of so many positions that holds a prefix; `known` holds it and maybe more."""
        if known is None:
            return self.language.new_cache(1, capacity)
        cache = known.copy(capacity=max(capacity, known.length))
        cache.truncate(self.positions(prefix))
        return cache

    def _extend(
        self,
        cache: KVCache,
        prompt_tokens: PromptTokens,
        start: int,
        views: Sequence[ImageInput],
        watch: Stopwatch,
    ) -> Generator[str, None, NDArray[np.float32] | None]:
        """Read prompt tokens from `start` on; logits f32[V] after the last, None if there was nothing left.

        Runs end where a prefix is kept, so that a prompt is read in the same runs, and to the same numbers,
        whether a part of it was known or not.
        """
        images = yield from self._encode(prompt_tokens[start:], views, watch)
        read: NDArray[np.float32] | None = None
        points = cache_points(prompt_tokens)
        ends = [point for point in points if point > start]
        kept = {*points[:1], *points[-1:]}  # the KV of all images holds that of the first ones
        for end in dict.fromkeys([*ends, len(prompt_tokens)] if start < len(prompt_tokens) else ()):
            embeddings = self.embed(prompt_tokens[start:end], images)
            for at in range(0, len(embeddings), self.chunk):
                last = at + self.chunk >= len(embeddings)
                read = self.language.forward(
                    embeddings[None, at : at + self.chunk],
                    cache,
                    num_logits=int(last and end == len(prompt_tokens)),
                )
                if last and end in kept and self._kept.budget > 0:
                    within = [prompt_tokens[:point] for point in points[1:] if point < end]
                    self._kept.put(prompt_tokens[:end], cache.copy(capacity=cache.length), within)
                watch.lap("prefill")
                yield ""
                watch.resume()
            start = end
        return None if read is None else read[0, -1]

    def _encode(
        self, prompt_tokens: PromptTokens, views: Sequence[ImageInput], watch: Stopwatch
    ) -> Generator[str, None, dict[bytes, NDArray[np.float32]]]:
        """Embeddings f32[N, H] of the images among the prompt tokens, by digest."""
        shown = [view for view in views if view.digest in prompt_tokens]
        found: dict[bytes, NDArray[np.float32]] = {}
        for view in shown:
            known = found.get(view.digest, self._images.pop(view.digest, None))
            if known is None:
                known = self.vision.encode(view.pixels[None])[0]
                check_finite(known, "the image encoder's output")  # what is kept must be right
                watch.lap("encode")
                yield ""
                watch.resume()
            found[view.digest] = known
            if self._kept.budget > 0:
                self._images[view.digest] = known
            if len(self._images) > KEPT_IMAGES:
                self._images.popitem(last=False)
        return found

    def embed(
        self, prompt_tokens: PromptTokens, images: Mapping[bytes, NDArray[np.float32]] = MappingProxyType({})
    ) -> NDArray[np.float32]:
        """Embeddings f32[T, H] of tokens and images."""
        parts = []
        for is_image, group in groupby(prompt_tokens, lambda token: isinstance(token, bytes)):
            if is_image:
                parts += [images[token] for token in group if isinstance(token, bytes)]
            else:
                parts.append(self.language.embed(np.array(list(group), dtype=np.int64)))
        return np.concatenate(parts)
