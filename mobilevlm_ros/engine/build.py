# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a bundle. Needs PyTorch (to read checkpoints) and onnx; serving needs neither."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import mobilevlm_ros
from mobilevlm_ros.engine.bundle import (
    DECODER,
    EMBEDDINGS,
    MANIFEST,
    TOKENIZER,
    VISION,
    Bundle,
    Manifest,
    seal,
)
from mobilevlm_ros.engine.calibration import Calibration, Prompt, read_prompts
from mobilevlm_ros.engine.export_decoder import DecoderPrecision, Quantizer, export_decoder, round_to_nearest
from mobilevlm_ros.engine.export_vision import export_vision
from mobilevlm_ros.engine.gptq_decoder import GptqDecoder
from mobilevlm_ros.engine.source import Tensors, open_source
from mobilevlm_ros.errors import BundleError
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.tokenizer import Tokenizer

T = TypeVar("T")
Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what comes next."""

VISION_STORES: dict[str, type[np.generic]] = {"fp16": np.float16, "fp32": np.float32, "int8": np.int8}
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
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Makes the bundle `out_dir` from a checkpoint, one layer in memory at a time.

    `checkpoint`, `revision` and `mmproj` are those of engine.source.open_source.
    `precision` defaults to 4 bits in blocks of 32. `vision_store` is one of VISION_STORES. `name` is the
    model id that answers report, by default the checkpoint's own. `force` replaces a bundle that
    is already there. With `calibration` the decoder is quantised by GPTQ for those conversations, otherwise
    by rounding to nearest.
    The directory appears only when it is complete; an error or Ctrl-C leaves nothing.
    Raises CheckpointError when the checkpoint cannot be used, BundleError when the bundle cannot be written,
    ImageError when the calibration's pictures cannot be used.
    """
    out = Path(out_dir)
    _check_target(out, force)
    opened = open_source(checkpoint, revision, mmproj)
    config, source = opened.config, opened.tensors
    precision = precision or DecoderPrecision()
    samples = calibration.count() if calibration is not None else 0
    steps = _Steps(config.num_vision_layers + config.language.num_hidden_layers + 4 + samples, progress)

    def layer_done(stage: str) -> None:
        source.release()
        steps.next(stage)

    with _fresh_directory(out) as work:
        (work / TOKENIZER).write_bytes(opened.tokenizer)
        steps.next("vision")
        files = export_vision(
            _weights(source), config, work / VISION, VISION_STORES[vision_store], lambda: layer_done("vision")
        )
        quantizer: Quantizer = round_to_nearest
        if calibration is not None:
            prompts = _prompts(calibration, config, source, work / VISION, Tokenizer(work / TOKENIZER))
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
            },
            source=opened.describe(),
            built_with={"mobilevlm_ros": mobilevlm_ros.__version__, **_versions("onnx", "numpy", "torch")},
            requires={"onnxruntime": precision.least_onnxruntime},
            files=seal([*files, EMBEDDINGS, TOKENIZER], work),
        )
        (work / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _move_into_place(work, out)
    steps.next("done")
    return Bundle(out, manifest)


def _prompts(
    calibration: Calibration,
    config: MobileVLMConfig,
    source: Tensors,
    vision: Path,
    tokenizer: Tokenizer,
) -> Iterator[Prompt]:
    """What the decoder will read: image tokens come from the encoder just built."""
    from mobilevlm_ros.engine.ort import OrtVision, open_session, session_options

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
        array: NDArray[np.float32] = source.tensor(key).float().numpy()
        return array

    return read


def _write_embeddings(source: Tensors, path: Path) -> None:
    """The embedding table as f16 [V, H], a file that serving maps into memory."""
    tensor = source.tensor("model.embed_tokens.weight")
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=tuple(tensor.shape))
    for start in range(0, len(tensor), _EMBEDDING_ROWS):
        rows = tensor[start : start + _EMBEDDING_ROWS].float().numpy()
        limit = np.finfo(np.float16).max
        table[start : start + _EMBEDDING_ROWS] = np.clip(rows, -limit, limit)
    table.flush()


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


def _check_target(out: Path, force: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise BundleError(f"{out} exists and is not a bundle; choose another output directory")
    if not force:
        raise BundleError(
            f"{out} already holds a bundle; use --force to replace it, or another output directory"
        )


@contextmanager
def _fresh_directory(out: Path) -> Iterator[Path]:
    """A directory beside `out` that is gone afterwards, whatever happens."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        work.chmod(0o755)
    except OSError as error:
        raise BundleError(f"cannot write beside {out}: {error}") from error
    try:
        yield work
    except OSError as error:
        raise BundleError(
            f"cannot write {out}: {error}; free space there, or choose another place"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _move_into_place(work: Path, out: Path) -> None:
    old = work.with_name(work.name + ".old")
    if out.exists():
        os.replace(out, old)
    try:
        os.replace(work, out)
    except BaseException:
        if old.exists():
            os.replace(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _method(calibration: Calibration | None, samples: int) -> dict[str, Any]:
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
