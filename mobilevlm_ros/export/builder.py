# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a bundle. Needs PyTorch (to read checkpoints) and onnx; serving needs neither."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.bundle import DECODER, EMBEDDINGS, MANIFEST, PREFILL, VISION, Bundle, Manifest, seal
from mobilevlm_ros.engine.checks import check_weights
from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.export.bundle_directory import BUNDLE, keep_plans
from mobilevlm_ros.export.graphs.decoder import export_decoder
from mobilevlm_ros.export.graphs.gpu import CUDA, export_gpu
from mobilevlm_ros.export.graphs.gpu import layers as gpu_layers
from mobilevlm_ros.export.graphs.prefill import export_prefill
from mobilevlm_ros.export.graphs.vision import export_vision
from mobilevlm_ros.export.quality.comparison import LEAST_COSINE, Comparison
from mobilevlm_ros.export.quantization.calibration_set import CalibrationPrompt, CalibrationSet, read_prompts
from mobilevlm_ros.export.quantization.gptq_decoder import GptqDecoder
from mobilevlm_ros.export.quantization.precision import DecoderPrecision
from mobilevlm_ros.export.quantization.round_to_nearest import Quantizer, round_to_nearest
from mobilevlm_ros.export.source import Tensors, open_source
from mobilevlm_ros.files.atomic_directory import check_directory, new_directory
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.tokenizer import TOKENIZER, Tokenizer
from mobilevlm_ros.version import __version__

logger = logging.getLogger(__name__)

T = TypeVar("T")
Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what comes next."""

AUTO = "auto"
"""Of vision_store."""
_AUTO_STORES = ("int8", "int8-block")  # the faster first; then fp16
_AUTO_PICTURES = 2
_EMBEDDING_ROWS = 4096  # rows of the embedding table converted at a time


def build_bundle(
    checkpoint: str | Path,
    out_dir: str | Path,
    *,
    precision: DecoderPrecision | None = None,
    vision_store: str = "fp16",
    name: str | None = None,
    revision: str | None = None,
    mmproj: Path | None = None,
    force: bool = False,
    calibration: CalibrationSet | None = None,
    quality: CalibrationSet | None = None,
    backends: Collection[str] = (CUDA,),
    fast_prefill: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Makes the bundle `out_dir` from a checkpoint, one layer in memory at a time.

    `checkpoint`, `revision` and `mmproj` are those of engine.source.open_source.
    `precision` defaults to 4 bits in blocks of 32. `vision_store` is one of vision_layers.STORES, or
    AUTO: the smallest that keeps the encoder's output to quality.LEAST_COSINE. `name` is the
    model id that answers report, by default the checkpoint's own. `force` replaces a bundle that
    is already there. With `calibration` the decoder is quantised by GPTQ for those conversations, otherwise
    by rounding to nearest; with `quality` those conversations tell what quantisation changed, which the
    manifest then reports. `backends` are those of export_gpu.GPU_BACKENDS that shall run the bundle beside
    the CPU. `fast_prefill` adds prefill.onnx: the language model once more in 8 bits, which reads prompts
    about twice as fast on a CPU.
    The directory appears only when it is complete; an error or Ctrl-C leaves nothing.
    Raises CheckpointError when the checkpoint cannot be used, OptionError when `precision` names matrices
    that it has not, BundleError when the bundle cannot be written,
    ImageError when the calibration's pictures cannot be used.
    """
    out = check_directory(Path(out_dir), BUNDLE, overwrite=force)
    opened = open_source(checkpoint, revision, mmproj)
    config, source = opened.config, opened.tensors
    precision = precision or DecoderPrecision()
    precision.check(config.language)
    if vision_store == AUTO and set(backends) - {CUDA}:
        vision_store = "fp16"  # TensorRT has no 8-bit encoder
    samples = calibration.count() if calibration is not None else 0
    layers = (
        config.num_vision_layers + config.language.num_hidden_layers + gpu_layers(backends, config.language)
    )
    if fast_prefill:
        layers += config.language.num_hidden_layers
    if quality is not None:
        layers += config.num_vision_layers + config.language.num_hidden_layers
    elif vision_store == AUTO:
        layers += config.num_vision_layers
    steps = _Steps(layers + 4 + samples, progress)

    def layer_done(stage: str) -> None:
        source.release()
        steps.next(stage)

    with new_directory(Path(out_dir), BUNDLE, overwrite=force) as work:
        (work / TOKENIZER).write_bytes(opened.tokenizer)
        tokenizer = Tokenizer(work / TOKENIZER)
        tokenizer.check_fits(config.language.vocab_size)
        comparison = None
        if quality is not None or vision_store == AUTO:
            comparison = Comparison(
                quality or CalibrationSet(samples=_AUTO_PICTURES),
                _weights(source),
                config,
                tokenizer,
                lambda: layer_done("reference"),
            )
        steps.next("vision")

        def write_vision(store: str, on_layer: Callable[[], None]) -> list[str]:
            return export_vision(_weights(source), config, work / VISION, store, on_layer)

        if vision_store == AUTO:
            assert comparison is not None
            vision_store, files = _smallest(config, work / VISION, comparison, write_vision, layer_done)
        else:
            files = write_vision(vision_store, lambda: layer_done("vision"))
        quantizer: Quantizer = round_to_nearest
        if calibration is not None:
            prompts = _prompts(calibration, config, source, work / VISION, tokenizer)
            quantizer = GptqDecoder(
                _weights(source), config.language, precision, steps.each(prompts, "calibration")
            )
        files += export_decoder(
            _weights(source),
            config.language,
            work / DECODER,
            precision,
            lambda: layer_done("decoder"),
            quantizer,
        )
        if fast_prefill:
            files += export_prefill(
                _weights(source), config.language, work / PREFILL, lambda: layer_done("prefill")
            )
        files += export_gpu(
            backends, _weights(source), config.language, work, lambda: layer_done("decoder for TensorRT")
        )
        _write_embeddings(source, work / EMBEDDINGS)
        steps.next("checksums")
        manifest = Manifest.describe(
            config,
            name or opened.name,
            precision={
                "vision": vision_store,
                "decoder_bits": precision.bits,
                "block_size": precision.block_size,
                "overrides": dict(precision.overrides),
                "quantization": _method(calibration, samples),
                "accuracy_level": precision.accuracy_level,
                "embeddings": "fp16",
                **({"prefill": "int8"} if fast_prefill else {}),
            },
            source=opened.describe(),
            built_with={"mobilevlm_ros": __version__, **_versions("onnx", "numpy", "torch")},
            requires={"onnxruntime": "1.22" if vision_store == "int8-block" else precision.least_onnxruntime},
            files=seal([*files, EMBEDDINGS, TOKENIZER], work),
        )
        if quality is not None and comparison is not None:
            manifest = _measured(manifest, work, comparison)
        (work / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        keep_plans(out, work)
    steps.next("done")
    return Bundle(out, manifest)


def _smallest(
    config: MobileVLMConfig,
    path: Path,
    comparison: Comparison,
    write: Callable[[str, Callable[[], None]], list[str]],
    layer_done: Callable[[str], None],
) -> tuple[str, list[str]]:
    """The first of _AUTO_STORES that keeps the encoder's output, else fp16; and the files written."""
    from mobilevlm_ros.engine.onnxruntime.backend import OrtVision, open_session, session_options

    done: Callable[[], None] = lambda: layer_done("vision")  # noqa: E731
    for store in _AUTO_STORES:
        files = write(store, done)
        done = lambda: None  # noqa: E731 (the bar has seen these layers)
        try:
            session = open_session(path, session_options())
            cosine = comparison.image_cosine(OrtVision(session, Manifest.describe(config, "")))
        except EngineError as error:  # an ONNX Runtime that does not know the operator
            logger.warning("the encoder in %s does not run here: %s", store, error)
            continue
        if cosine >= LEAST_COSINE:
            return store, files
        logger.warning("the encoder in %s keeps a cosine of %.4f only, not %s", store, cosine, LEAST_COSINE)
    return "fp16", write("fp16", done)


def _measured(manifest: Manifest, work: Path, comparison: Comparison) -> Manifest:
    from mobilevlm_ros.engine.onnxruntime import backend as ort

    try:
        vision, language = ort.load(Bundle(work, manifest))
        found = comparison.measure(vision, language, manifest.stop_ids)
    except EngineError as error:
        logger.warning("the bundle's quality cannot be measured on this machine: %s", error)
        return manifest
    return dataclasses.replace(manifest, quality=found.to_json())


def _prompts(
    calibration: CalibrationSet,
    config: MobileVLMConfig,
    source: Tensors,
    vision: Path,
    tokenizer: Tokenizer,
) -> Iterator[CalibrationPrompt]:
    """What the decoder will read: image tokens come from the encoder just built."""
    from mobilevlm_ros.engine.onnxruntime.backend import OrtVision, open_session, session_options

    manifest = Manifest.describe(config, "")
    engine = OrtVision(open_session(vision, session_options()), manifest)
    table = source.tensor("model.embed_tokens.weight")

    def encode(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return engine.encode(prepare(image, config.vision.image_size, aspect=config.aspect)[None])[0]

    def embed(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = table[ids].float().numpy()
        return rows

    return read_prompts(calibration.conversations(), tokenizer, manifest.template, encode, embed)


def _weights(source: Tensors) -> Callable[[str], NDArray[np.float32]]:
    def read(key: str) -> NDArray[np.float32]:
        return check_weights(key, source.tensor(key).float().numpy())

    return read


def _write_embeddings(source: Tensors, path: Path) -> None:
    """The embedding table as f16 [V, H], a file that serving maps into memory."""
    tensor = source.tensor("model.embed_tokens.weight")
    header = {"descr": "<f2", "fortran_order": False, "shape": tuple(tensor.shape)}
    limit = np.finfo(np.float16).max
    with path.open("wb") as stream:  # not through a memory map: a full disk would kill the process
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(tensor), _EMBEDDING_ROWS):
            rows = tensor[start : start + _EMBEDDING_ROWS].float().numpy()
            check_weights("model.embed_tokens.weight", rows)
            stream.write(np.clip(rows, -limit, limit).astype("<f2").tobytes())


class _Steps:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done = -1
        self.total = total
        self.progress = progress

    def next(self, what: str) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, what)

    def each(self, items: Iterable[T], what: str) -> Iterator[T]:
        """The items, each a step."""
        for item in items:
            yield item
            self.next(what)


def _method(calibration: CalibrationSet | None, samples: int) -> dict[str, Any]:
    if calibration is None:
        return {"method": "rtn"}
    pictures = "simulated scenes" if calibration.directory is None else calibration.directory.resolve().name
    return {"method": "gptq", "samples": samples, "seed": calibration.seed, "pictures": pictures}


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
