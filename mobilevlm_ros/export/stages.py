# SPDX-License-Identifier: Apache-2.0
"""The stages of a build: what is written into a bundle, in which order, and how many steps each takes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.bundle import DECODER, EMBEDDINGS, MANIFEST, PREFILL, VISION, Bundle, Manifest, seal
from mobilevlm_ros.engine.checks import check_weights
from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.export.graphs import gpu
from mobilevlm_ros.export.graphs.decoder import export_decoder
from mobilevlm_ros.export.graphs.prefill import export_prefill
from mobilevlm_ros.export.graphs.vision import export_vision
from mobilevlm_ros.export.layer_loader import Weights
from mobilevlm_ros.export.options import AUTO, BuildOptions
from mobilevlm_ros.export.quality.comparison import LEAST_COSINE, Comparison
from mobilevlm_ros.export.quantization.calibration_set import CalibrationPrompt, CalibrationSet, read_prompts
from mobilevlm_ros.export.quantization.calibration_text import (
    LENGTH,
    PASSAGES,
    calibration_text,
    read_text,
)
from mobilevlm_ros.export.quantization.gptq_decoder import GptqDecoder
from mobilevlm_ros.export.quantization.round_to_nearest import Quantizer, round_to_nearest
from mobilevlm_ros.export.source import Source, Tensors
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.tokenizer import TOKENIZER, Tokenizer
from mobilevlm_ros.version import __version__

logger = logging.getLogger(__name__)

T = TypeVar("T")
Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what comes next."""

_AUTO_STORES = ("int8", "int8-block")  # the faster first; then fp16
_AUTO_PICTURES = 2
_EMBEDDING_ROWS = 4096  # rows of the embedding table converted at a time


class Steps:
    """Counts the steps of all stages."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done = -1
        self.total = total
        self.progress = progress

    def next(self, what: str) -> None:
        """One more step; `what` comes next."""
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, what)

    def each(self, items: Iterable[T], what: str) -> Iterator[T]:
        """The items, each a step."""
        for item in items:
            yield item
            self.next(what)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a build: how often it calls `Steps.next`, and what it does."""

    name: str
    steps: int
    run: Callable[[Steps], None]


class Build:
    """A bundle being made in the directory `work`.

    Attributes:
        manifest: what was made, once the last stage has run.
    """

    def __init__(self, source: Source, options: BuildOptions, work: Path) -> None:
        self.manifest: Manifest | None = None
        self._source = source
        self._config = source.config
        self._options = options
        self._work = work
        self._weights = _checked(source.tensors)
        self._store = options.store
        self._samples = 0 if options.calibration is None else options.calibration.count()
        self._read = self._samples and self._samples + PASSAGES  # prompts that GPTQ reads
        self._comparison: Comparison | None = None
        self._files: list[str] = []
        (work / TOKENIZER).write_bytes(source.tokenizer)
        self._tokenizer = Tokenizer(work / TOKENIZER)
        self._tokenizer.check_fits(source.config.language.vocab_size)

    def stages(self) -> list[Stage]:
        """What there is to do, in order."""
        options, tower = self._options, self._config.num_vision_layers
        layers = self._config.language.num_hidden_layers
        stages = []
        if options.quality is not None:
            stages.append(Stage("reference", tower + layers, self._read_reference))
        elif self._store == AUTO:
            stages.append(Stage("reference", tower, self._read_reference))
        stages.append(Stage("vision", 1 + tower + 1, self._write_vision))  # its beginning, and the projector
        stages.append(Stage("decoder", self._read + layers + 1, self._write_decoder))  # and the head
        if options.fast_prefill:
            stages.append(Stage("prefill", layers, self._write_prefill))
        gpu_layers = gpu.layers(options.backends, self._config.language)
        stages.append(Stage("decoder for TensorRT", gpu_layers, self._write_gpu))
        stages.append(Stage("embeddings", 0, self._write_embeddings))
        stages.append(Stage("checksums", 1, self._seal))
        return stages

    def _layer_done(self, steps: Steps, what: str) -> Callable[[], None]:
        def done() -> None:
            self._source.tensors.release()
            steps.next(what)

        return done

    def _read_reference(self, steps: Steps) -> None:
        asked = self._options.quality or CalibrationSet(samples=_AUTO_PICTURES)
        done = self._layer_done(steps, "reference")
        self._comparison = Comparison(asked, self._weights, self._config, self._tokenizer, done)

    def _write_vision(self, steps: Steps) -> None:
        steps.next("vision")
        done = self._layer_done(steps, "vision")
        if self._store == AUTO:
            self._store, self._files = self._smallest_vision(done)
        else:
            self._files = self._export_vision(self._store, done)

    def _export_vision(self, store: str, on_layer: Callable[[], None]) -> list[str]:
        return export_vision(self._weights, self._config, self._work / VISION, store, on_layer)

    def _smallest_vision(self, done: Callable[[], None]) -> tuple[str, list[str]]:
        """The first of _AUTO_STORES that keeps the encoder's output, else fp16; and the files written."""
        from mobilevlm_ros.engine.onnxruntime.backend import OrtVision, open_session, session_options

        assert self._comparison is not None
        for store in _AUTO_STORES:
            files = self._export_vision(store, done)
            done = _nothing  # the bar has seen these layers
            try:
                session = open_session(self._work / VISION, session_options())
                engine = OrtVision(session, Manifest.describe(self._config, ""))
                cosine = self._comparison.image_cosine(engine)
            except EngineError as error:  # an ONNX Runtime that does not know the operator
                logger.warning("the encoder in %s does not run here: %s", store, error)
                continue
            if cosine >= LEAST_COSINE:
                return store, files
            logger.warning(
                "the encoder in %s keeps a cosine of %.4f only, not %s", store, cosine, LEAST_COSINE
            )
        return "fp16", self._export_vision("fp16", done)

    def _write_decoder(self, steps: Steps) -> None:
        language, precision = self._config.language, self._options.precision
        quantizer: Quantizer = round_to_nearest
        if self._options.calibration is not None:
            prompts = steps.each(self._prompts(self._options.calibration), "calibration")
            quantizer = GptqDecoder(self._weights, language, precision, prompts)
        done = self._layer_done(steps, "decoder")
        path = self._work / DECODER
        self._files += export_decoder(self._weights, language, path, precision, done, quantizer)

    def _prompts(self, calibration: CalibrationSet) -> Iterator[CalibrationPrompt]:
        """What the decoder will read: image tokens come from the encoder just built."""
        from mobilevlm_ros.engine.onnxruntime.backend import OrtVision, open_session, session_options

        config = self._config
        manifest = Manifest.describe(config, "")
        engine = OrtVision(open_session(self._work / VISION, session_options()), manifest)
        table = self._source.tensors.tensor("model.embed_tokens.weight")

        def encode(image: NDArray[np.uint8]) -> NDArray[np.float32]:
            return engine.encode(prepare(image, config.vision.image_size, aspect=config.aspect)[None])[0]

        def embed(ids: NDArray[np.int64]) -> NDArray[np.float32]:
            rows: NDArray[np.float32] = table[ids].float().numpy()
            return rows

        conversations = calibration.conversations()
        yield from read_prompts(conversations, self._tokenizer, manifest.template, encode, embed)
        length = min(LENGTH, config.language.context_length)
        yield from read_text(self._tokenizer.encode(calibration_text()), embed, length=length)

    def _write_prefill(self, steps: Steps) -> None:
        done = self._layer_done(steps, "prefill")
        self._files += export_prefill(self._weights, self._config.language, self._work / PREFILL, done)

    def _write_gpu(self, steps: Steps) -> None:
        done = self._layer_done(steps, "decoder for TensorRT")
        language = self._config.language
        self._files += gpu.export_gpu(self._options.backends, self._weights, language, self._work, done)

    def _write_embeddings(self, steps: Steps) -> None:
        """The embedding table as f16 [V, H], read into memory when it is served."""
        tensor = self._source.tensors.tensor("model.embed_tokens.weight")
        header = {"descr": "<f2", "fortran_order": False, "shape": tuple(tensor.shape)}
        limit = np.finfo(np.float16).max
        path = self._work / EMBEDDINGS
        with path.open("wb") as stream:  # not through a memory map: a full disk would kill the process
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, len(tensor), _EMBEDDING_ROWS):
                rows = tensor[start : start + _EMBEDDING_ROWS].float().numpy()
                check_weights("model.embed_tokens.weight", rows)
                stream.write(np.clip(rows, -limit, limit).astype("<f2").tobytes())

    def _seal(self, steps: Steps) -> None:
        steps.next("checksums")
        options, precision = self._options, self._options.precision
        manifest = Manifest.describe(
            self._config,
            options.name or self._source.name,
            precision={
                "vision": self._store,
                "decoder_bits": precision.bits,
                "block_size": precision.block_size,
                "overrides": dict(precision.overrides),
                "quantization": _method(options.calibration, self._samples),
                "accuracy_level": precision.accuracy_level,
                "embeddings": "fp16",
                **({"prefill": "int8"} if options.fast_prefill else {}),
            },
            source=self._source.describe(),
            built_with={"mobilevlm_ros": __version__, **_versions("onnx", "numpy", "torch")},
            requires={"onnxruntime": "1.22" if self._store == "int8-block" else precision.least_onnxruntime},
            files=seal([*self._files, EMBEDDINGS, TOKENIZER], self._work),
        )
        if options.quality is not None and self._comparison is not None:
            manifest = _measured(manifest, self._work, self._comparison)
        (self._work / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        self.manifest = manifest


def _nothing() -> None:
    pass


def _measured(manifest: Manifest, work: Path, comparison: Comparison) -> Manifest:
    from mobilevlm_ros.engine.onnxruntime import backend as ort

    try:
        vision, language = ort.load(Bundle(work, manifest))
        found = comparison.measure(vision, language, manifest.stop_ids)
    except EngineError as error:
        logger.warning("the bundle's quality cannot be measured on this machine: %s", error)
        return manifest
    return dataclasses.replace(manifest, quality=found.to_json())


def _checked(source: Tensors) -> Weights:
    def read(key: str) -> NDArray[np.float32]:
        return check_weights(key, source.tensor(key).float().numpy())

    return read


def _method(calibration: CalibrationSet | None, samples: int) -> dict[str, Any]:
    if calibration is None:
        return {"method": "rtn"}
    pictures = "simulated scenes" if calibration.directory is None else calibration.directory.resolve().name
    return {
        "method": "gptq",
        "samples": samples,
        "seed": calibration.seed,
        "pictures": pictures,
        "passages": PASSAGES,
    }


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
