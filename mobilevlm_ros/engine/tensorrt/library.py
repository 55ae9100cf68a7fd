# SPDX-License-Identifier: Apache-2.0
"""Loads the tensorrt package and says what this version of it is like."""

from __future__ import annotations

import logging
from typing import Any

from mobilevlm_ros.errors import EngineError

logger = logging.getLogger(__name__)

OLDEST = (8, 5)
_KEPT_ERRORS = 8


class Library:
    """The module `tensorrt`, its version, and a logger that keeps the latest errors."""

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.version_text = str(trt.__version__)
        self.version = version_of(self.version_text)
        if self.version < OLDEST:
            raise EngineError(
                f"TensorRT {self.version_text} is too old: 8.5 (JetPack 5.1) or newer is needed; use backend "
                "onnxruntime-cpu, or update JetPack"
            )
        self.logger = _make_logger(trt)

    @property
    def typed(self) -> bool:
        """Whether types come from the graph (10 and newer) or are asked for layer by layer."""
        return self.version >= (10, 0)

    def fail(self, what: str, hint: str) -> EngineError:
        """An error that quotes what TensorRT itself said."""
        said = "; ".join(self.logger.errors) or "it gave no reason"
        self.logger.errors.clear()
        return EngineError(f"TensorRT {self.version_text} could not {what}: {said}. {hint}")


def load_library() -> Library:
    """The installed TensorRT. Raises EngineError, which says how to get one."""
    try:
        import tensorrt
    except Exception as error:  # a missing libnvinfer or CUDA raises more than ImportError
        raise EngineError(
            f"the package tensorrt cannot be imported ({type(error).__name__}: {error}); on Jetson: sudo "
            "apt install python3-libnvinfer, and make virtual environments with --system-site-packages; "
            "elsewhere: pip install tensorrt"
        ) from error
    return Library(tensorrt)


def version_of(text: str) -> tuple[int, int]:
    """'10.3.0' to (10, 3)."""
    numbers = [int(part) for part in text.split(".")[:2] if part.isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def _make_logger(trt: Any) -> Any:
    """An ILogger that passes on to `logging`."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.DEBUG,  # hundreds of lines about types in every build
        trt.ILogger.Severity.INFO: logging.DEBUG,
        trt.ILogger.Severity.VERBOSE: 0,
    }

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.errors.append(" ".join(message.split()))
                del self.errors[:-_KEPT_ERRORS]
            if level:
                logger.log(level, "TensorRT: %s", message)

    return Logger()
