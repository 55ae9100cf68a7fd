# SPDX-License-Identifier: Apache-2.0
"""From a bundle to engines that run: picks the backend, and says which and why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.checkpoints.hub import locate
from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.engine.cuda.device import find_gpu
from mobilevlm_ros.engine.cuda.process_memory import process_memory
from mobilevlm_ros.engine.interfaces import LanguageEngine, VisionEngine
from mobilevlm_ros.engine.tuning import tuned_threads
from mobilevlm_ros.errors import BundleError, CheckpointError, EngineError
from mobilevlm_ros.processing.tokenizer import TOKENIZER, Tokenizer

logger = logging.getLogger(__name__)

AUTO = "auto"
TENSORRT = "tensorrt"
ONNXRUNTIME = "onnxruntime"
"""The better of ONNX Runtime's two."""
ORT_CUDA = "onnxruntime-cuda"
ORT_CPU = "onnxruntime-cpu"
TORCH = "torch"
SHIPPED = "nano"
"""Name of the bundle that comes with the package."""
Engines = tuple[VisionEngine, LanguageEngine]


@dataclass(frozen=True, repr=False)
class Runtime:
    """A loaded model: everything inference needs, whatever backend runs it."""

    bundle: Bundle
    vision: VisionEngine
    language: LanguageEngine
    tokenizer: Tokenizer
    backend_name: str
    reason: str
    """Why this backend, in one sentence."""
    fallbacks: tuple[str, ...] = ()
    """Better backends that were tried and failed: a sentence each, with what to do about it."""

    def __repr__(self) -> str:
        return f"Runtime({self.bundle.manifest.name!r}, {self.backend_name})"

    def device_memory(self) -> int:
        """Bytes that this process holds on GPUs; 0 with a backend that uses none, and on Jetson, whose GPU
        uses the memory of the machine.
        """
        return process_memory() if self.backend_name in (TENSORRT, ORT_CUDA) else 0


def load_runtime(
    bundle_dir: str | Path | None = None, backend: str = AUTO, threads: int = 0, spin: bool = False
) -> Runtime:
    """Loads a bundle (the shipped nano model by default).

    'nano' is that one too, and `~` in `bundle_dir` is the home directory. `backend` is one of
    BACKEND_NAMES; 'torch' takes a checkpoint directory or hub id instead of a bundle. `threads` is the number
    of CPU threads, 0 for what `mobilevlm tune` found best for this bundle here, else one per physical core.
    `spin` lets idle threads busy-wait: a little faster alone, several times slower when another process wants
    the cores. Raises BundleError, EngineError, and CheckpointError (torch only).
    """
    if backend not in BACKEND_NAMES:
        raise EngineError(f"unknown backend {backend!r}; choose one of {', '.join(BACKEND_NAMES)}")
    if threads < 0:
        raise EngineError(f"threads is {threads}; use 0 for one per physical core, or a positive number")
    path = find_bundle(bundle_dir)
    if backend == TORCH:
        return _torch_runtime(path, threads)
    bundle = Bundle.open(path)
    threads = threads or tuned_threads(bundle)
    tokenizer = _tokenizer(bundle)
    names, reason = _candidates(backend)
    failures: list[str] = []
    for name in names:
        try:
            vision, language = BACKENDS[name](bundle, threads, spin)
        except Exception as error:
            if len(names) == 1 and isinstance(error, EngineError):
                raise
            # Whatever a GPU's libraries raise, a slower backend is better than none.
            text = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
            failures.append(f"{name} cannot run this bundle here: {text}")
            logger.warning("%s", failures[-1], exc_info=not isinstance(error, EngineError))
            continue
        logger.info("%s runs on %s (%s)", bundle.manifest.name, name, reason)
        return Runtime(bundle, vision, language, tokenizer, name, reason, tuple(failures))
    raise EngineError(f"no backend can run {path}: {'; '.join(failures)}")


def _candidates(backend: str) -> tuple[tuple[str, ...], str]:
    """Backends to try, best first, and the reason to give for the first that loads."""
    groups = {AUTO: tuple(BACKENDS), ONNXRUNTIME: (ORT_CUDA, ORT_CPU)}
    if backend not in groups:
        return (backend,), "asked for"
    gpu = find_gpu()
    if gpu is None:
        return (ORT_CPU,), "the best backend on a machine without an NVIDIA GPU"
    return groups[backend], f"the best backend that loads here, with {gpu}"


def find_bundle(name: str | Path | None) -> Path:
    """The directory that a name stands for: None and, where no directory is called so, 'nano' are the nano
    bundle of this package; `~` is the home directory. Raises BundleError if nano is not installed.
    """
    if name is None or (str(name) == SHIPPED and not Path(name).exists()):
        return shipped_bundle()
    return Path(name).expanduser()


def shipped_bundle() -> Path:
    """Directory of the nano bundle that comes with this package. Raises BundleError if not installed."""
    inside = Path("models", "nano", "bundle")
    source = Path(__file__).resolve().parents[2] / inside
    # Installed, this file lies under <prefix>/lib/python3.x/..., so one of its parents is the prefix.
    installed = (parent / "share" / "mobilevlm_ros" / inside for parent in Path(__file__).resolve().parents)
    for candidate in (source, *installed):
        if candidate.is_dir():
            return candidate
    raise BundleError(
        f"the nano bundle that comes with mobilevlm_ros is not installed (looked at {source} and under "
        "share/ of each parent directory); reinstall the package, or name a bundle"
    )


def _tokenizer(bundle: Bundle) -> Tokenizer:
    try:
        return Tokenizer(bundle.file(TOKENIZER))
    except CheckpointError as error:
        raise BundleError(f"bundle {bundle.path}: {error}") from error


def _ort_cpu(bundle: Bundle, threads: int, spin: bool) -> Engines:
    from mobilevlm_ros.engine.onnxruntime import backend as ort

    return ort.load(bundle, threads=threads, spin=spin)


def _ort_cuda(bundle: Bundle, threads: int, spin: bool) -> Engines:
    from mobilevlm_ros.engine.onnxruntime import cuda as ort_cuda

    return ort_cuda.load(bundle, threads=threads, spin=spin)


def _tensorrt(bundle: Bundle, threads: int, spin: bool) -> Engines:
    from mobilevlm_ros.engine.tensorrt.backend import load

    return load(bundle)


def _torch_runtime(path: Path, threads: int) -> Runtime:
    try:
        from mobilevlm_ros.engine.torch import backend as torch_backend
    except ImportError as error:
        raise EngineError(f"the torch backend needs PyTorch ({error}); pip install torch") from error
    path = locate(path)
    bundle, vision, language = torch_backend.load(path, threads=threads)
    return Runtime(bundle, vision, language, Tokenizer(path / TOKENIZER), TORCH, "asked for")


BACKENDS: dict[str, Callable[[Bundle, int, bool], Engines]] = {
    TENSORRT: _tensorrt,
    ORT_CUDA: _ort_cuda,
    ORT_CPU: _ort_cpu,
}
"""Backends that run a bundle, best first: the order in which 'auto' tries them."""

BACKEND_NAMES = (AUTO, *BACKENDS, ONNXRUNTIME, TORCH)
"""Everything `load_runtime` takes as `backend`."""
