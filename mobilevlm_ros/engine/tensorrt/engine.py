# SPDX-License-Identifier: Apache-2.0
"""The encoder and the decoder as TensorRT runs them: named tensors, execute_async_v3, CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.batching.per_sequence import CachedSequence, PerSequenceLanguage
from mobilevlm_ros.engine.bundle import Manifest
from mobilevlm_ros.engine.checks import check_finite, check_pixels
from mobilevlm_ros.engine.cuda.runtime import Cuda
from mobilevlm_ros.engine.tensorrt import api, names
from mobilevlm_ros.engine.tensorrt.kv_cache import KVSlot, SlotPool, TrtSequence
from mobilevlm_ros.engine.tensorrt.library import Library
from mobilevlm_ros.engine.tensorrt.memory import Allocation, Graph, PinnedBuffer
from mobilevlm_ros.errors import EngineError

logger = logging.getLogger(__name__)

PREFILL, DECODE = 0, 1
"""The decoder's optimisation profiles."""


class Context:
    """An execution context whose every refusal is an EngineError."""

    def __init__(self, library: Library, engine: api.ICudaEngine, profile: int, stream: int) -> None:
        self._library, self._stream = library, stream
        context = engine.create_execution_context()
        if context is None:
            raise library.fail("make an execution context", "The GPU may be out of memory")
        self._context = context
        self._check(context.set_optimization_profile_async(profile, stream), f"take profile {profile}")

    def shape(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Sets inputs' shapes."""
        for name, shape in shapes.items():
            self._check(self._context.set_input_shape(name, tuple(shape)), f"take {name} of {tuple(shape)}")

    def place(self, addresses: Mapping[str, int]) -> None:
        """Sets where inputs and outputs are."""
        for name, address in addresses.items():
            self._check(self._context.set_tensor_address(name, address), f"take the address of {name}")

    def execute(self) -> None:
        """Puts one run into the stream."""
        self._check(self._context.execute_async_v3(self._stream), "run")

    def _check(self, done: bool, what: str) -> None:
        if not done:
            raise self._library.fail(what, "Remove the bundle's folder `plans`, so that they are built anew")


def deserialize(library: Library, plan: bytes, inputs: Sequence[str]) -> api.ICudaEngine | None:
    """The engine of a plan; None when TensorRT refuses it or it has not these inputs."""
    try:
        runtime: api.Runtime = library.trt.Runtime(library.logger)
    except TypeError as error:  # what the bindings raise when there is no usable GPU
        raise library.fail("start", f"Is the GPU free, and its driver new enough? ({error})") from error
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    found = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    return engine if set(inputs) <= found else None


def record(cuda: Cuda, stream: int, work: Callable[[], None]) -> Graph | None:
    """What `work` puts into the stream, as a graph; None (with a log line) when it cannot be recorded."""
    trouble: EngineError | None = None
    try:
        cuda.begin_capture(stream)
        try:
            work()
        except EngineError as error:
            trouble = error
        graph = Graph(cuda, cuda.end_capture(stream))  # also after trouble, or the stream stays as it is
    except EngineError as error:
        trouble = trouble or error
    if trouble is None:
        return graph
    logger.warning("decoding without a CUDA graph, a little slower: %s", trouble)
    return None


class TrtVision:
    """Encoder and projector; one image per run."""

    def __init__(self, library: Library, engine: api.ICudaEngine, cuda: Cuda, manifest: Manifest) -> None:
        self.image_size = manifest.image_size
        self.num_tokens = manifest.image_tokens
        self.hidden_size = manifest.hidden_size
        self._cuda, self._engine = cuda, engine
        self._stream = cuda.stream()
        self._shape = (1, self.image_size, self.image_size, 3)
        self._pixels = PinnedBuffer(cuda, self._shape, np.uint8)
        self._embeddings = PinnedBuffer(cuda, (self.num_tokens, self.hidden_size), np.float32)
        self._context = Context(library, engine, 0, self._stream)
        self._context.shape({names.PIXELS: self._shape})
        self._context.place(
            {names.PIXELS: self._pixels.address, names.IMAGE_EMBEDDINGS: self._embeddings.address}
        )

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See VisionEngine.encode."""
        check_pixels(pixels, self.image_size)
        results = []
        for image in pixels:
            self._pixels.write(image, self._stream)
            self._context.execute()
            results.append(self._embeddings.read((self.num_tokens, self.hidden_size), self._stream))
        embeddings: NDArray[np.float32] = np.stack(results)
        check_finite(embeddings, "the image encoder's output")
        return embeddings


class TrtLanguage(PerSequenceLanguage):
    """The decoder: prompts in pieces of up to names.MAX_TOKENS, single tokens as a CUDA graph."""

    row_type = TrtSequence

    def __init__(
        self,
        library: Library,
        engine: api.ICudaEngine,
        cuda: Cuda,
        table: NDArray[np.floating[Any]],
        manifest: Manifest,
        *,
        graphs: bool = True,
    ) -> None:
        """`graphs` off runs each decode step kernel by kernel."""
        super().__init__(table, manifest)
        self._cuda, self._engine, self._graphs = cuda, engine, graphs
        self._stream = stream = cuda.stream()
        self._pool = SlotPool(cuda, manifest, stream)
        self._piece = min(names.MAX_TOKENS, self.max_length)
        self._embeddings = PinnedBuffer(cuda, (self._piece, self.hidden_size), np.float32)
        self._positions = PinnedBuffer(cuda, (self._piece,), np.int32)
        self._past_positions = PinnedBuffer(cuda, (self.max_length,), np.int32)
        self._rows_wanted = PinnedBuffer(cuda, (names.MAX_LOGITS,), np.int32)
        self._logits = PinnedBuffer(cuda, (names.MAX_LOGITS, self.vocab_size), np.float32)
        self._fresh = Allocation(cuda, self._pool.heads * self._piece * self._pool.token)
        self._contexts = [Context(library, engine, profile, stream) for profile in (PREFILL, DECODE)]
        ports = {
            names.EMBEDDINGS: self._embeddings,
            names.POSITIONS: self._positions,
            names.PAST_POSITIONS: self._past_positions,
            names.LOGIT_ROWS: self._rows_wanted,
            names.LOGITS: self._logits,
        }
        for context in self._contexts:
            context.place({name: port.address for name, port in ports.items()})
        self._decode_room = 0
        self._decode_state = 0
        self._pointed: KVSlot | None = None
        """The slot whose addresses the decode context has, and has run with."""

    def _new_row(self, capacity: int) -> TrtSequence:
        return TrtSequence(capacity, self._pool)

    def _read(
        self, row: CachedSequence, embeddings: NDArray[np.float32], num_logits: int
    ) -> NDArray[np.float32]:
        assert isinstance(row, TrtSequence)
        slot = row.slot(row.length + len(embeddings))
        results = []
        for start, end, needs_logits in pieces(len(embeddings), num_logits, self._piece):
            logits = self._run(slot, row.length + start, embeddings[start:end], max(1, needs_logits))
            results.append(logits[len(logits) - needs_logits :])
        return np.concatenate(results)

    def _run(
        self, slot: KVSlot, past: int, embeddings: NDArray[np.float32], needs_logits: int
    ) -> NDArray[np.float32]:
        """Reads [T, H] after the `past` first tokens of a slot; the last `wanted` logits f32 [n, V]."""
        tokens, stream = len(embeddings), self._stream
        places = np.arange(slot.room, dtype=np.int32)
        places[past:] = names.UNUSED
        self._past_positions.write(places, stream)
        self._positions.write(np.arange(past, past + tokens, dtype=np.int32), stream)
        self._rows_wanted.write(np.arange(tokens - needs_logits, tokens, dtype=np.int32), stream)
        self._embeddings.write(embeddings, stream)
        if tokens == 1:
            self._step(slot)
        else:
            context = self._contexts[PREFILL]
            self._point(context, slot, tokens, needs_logits)
            context.execute()
        token = self._pool.token
        self._cuda.copy_rows(
            slot.allocation.address + past * token,
            slot.room * token,
            self._fresh.address,
            tokens * token,
            tokens * token,
            self._pool.heads,
            stream,
        )
        return self._logits.read((needs_logits, self.vocab_size), stream)

    def _step(self, slot: KVSlot) -> None:
        """One token: plainly the first time after any change, then recorded, then replayed."""
        context = self._contexts[DECODE]
        if slot.room != self._decode_room:  # with other shapes, what was recorded before is void
            self._decode_room, self._pointed = slot.room, None
            self._decode_state += 1
        if slot.graph is not None and slot.graph_of != self._decode_state:
            slot.graph = None
        if slot.graph is None and self._pointed is slot and self._graphs:
            slot.graph, slot.graph_of = record(self._cuda, self._stream, context.execute), self._decode_state
            self._graphs = slot.graph is not None
        if slot.graph is not None:
            self._cuda.launch(slot.graph.handle, self._stream)
            return
        if self._pointed is not slot:
            self._point(context, slot, 1, 1)
            self._pointed = slot
        context.execute()

    def _point(self, context: Context, slot: KVSlot, tokens: int, needs_logits: int) -> None:
        """Sets the shapes of a run, and the addresses of the slot and of what the run adds to it."""
        manifest, layer_heads = self._manifest, self._manifest.num_kv_heads * self._pool.token
        held = (manifest.num_kv_heads, slot.room, manifest.head_dim)
        shapes: dict[str, Sequence[int]] = {
            names.EMBEDDINGS: (tokens, self.hidden_size),
            names.POSITIONS: (tokens,),
            names.PAST_POSITIONS: (slot.room,),
            names.LOGIT_ROWS: (needs_logits,),
        }
        addresses = {}
        for index, (layer, kind) in enumerate(
            (layer, kind) for layer in range(manifest.num_layers) for kind in ("key", "value")
        ):
            shapes[names.past(layer, kind)] = held
            addresses[names.past(layer, kind)] = slot.allocation.address + index * slot.room * layer_heads
            addresses[names.new(layer, kind)] = self._fresh.address + index * tokens * layer_heads
        context.shape(shapes)
        context.place(addresses)


def pieces(tokens: int, num_logits: int, longest: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and number of wanted logits of each run that reads `tokens`, of which the last `num_logits`
    are wanted; a run takes `longest` tokens and gives names.MAX_LOGITS logits at most.
    """
    start, first_wanted = 0, tokens - num_logits
    while start < tokens:
        end = min(tokens, start + longest, max(start, first_wanted) + names.MAX_LOGITS)
        yield start, end, max(0, end - max(start, first_wanted))
        start = end
