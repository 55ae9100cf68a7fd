# SPDX-License-Identifier: Apache-2.0
"""Every error a user can meet. A message names the thing, what was wrong with it, and what to do."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)

LONGEST_MESSAGE = 4000
"""Characters of an error's text, which may quote what a stranger sent; a longer one loses its middle."""


def shortened(text: str, length: int) -> str:
    """The text, its middle left out where it is longer than `length`: the remedy stands at the end."""
    tail = length // 4
    return text if len(text) <= length else f"{text[: length - tail - 5]} ... {text[-tail:]}"


class MobileVLMError(Exception):
    """Base of all errors raised on purpose by this package."""

    def __str__(self) -> str:
        return shortened(super().__str__(), LONGEST_MESSAGE)


class ImageError(MobileVLMError, ValueError):
    """An image that cannot be used: wrong shape, dtype, encoding, or truncated data."""


class QuestionError(MobileVLMError, ValueError):
    """A question or one of its options that cannot be used."""


class OptionError(QuestionError):
    """A field beside the question that is out of range: max_tokens, temperature, ..."""


class Unsupported(OptionError):
    """A valid option that this installation or configuration cannot serve."""


class ConfigurationError(MobileVLMError, ValueError):
    """A configuration file that cannot be used: presets, monitors, ..."""


class BagError(MobileVLMError, ValueError):
    """A recording, or what was made of one, that cannot be read or does not hold what was asked for."""


class EvaluationError(MobileVLMError, ValueError):
    """A benchmark's folder, an exam or a file of answers that cannot be scored as it is."""


class IncompleteAnswer(OptionError):
    """An answer with a format that max_tokens cut off; what there is of it is not of that format."""


class NonconformingAnswer(OptionError):
    """A complete answer with a JSON Schema that it does not conform to, in what a grammar cannot express."""


class CheckpointError(MobileVLMError):
    """A directory that is not a usable MobileVLM checkpoint."""


class BundleError(MobileVLMError):
    """A bundle that is missing, incomplete, altered, or from an unknown schema."""


class OutputError(MobileVLMError, OSError):
    """A file or directory that cannot be written, or that may not be replaced."""


class CheckpointOutputError(CheckpointError, OutputError):
    """A checkpoint that cannot be written, or that may not be replaced."""


class BundleOutputError(BundleError, OutputError):
    """A bundle, or a file of one, that cannot be written, or that may not be replaced."""


class MemoryFileError(MobileVLMError):
    """A memory (a search index) that is missing, damaged, of another version, or in use."""


class EngineError(MobileVLMError):
    """A backend that could not be loaded, or failed while running."""


class DeviceMemoryError(EngineError):
    """The GPU has no memory left for what was asked; smaller requests may still work."""


class DeviceLost(EngineError):
    """The GPU or its driver is gone or broken; only a new process can use it again."""


class ContextOverflow(MobileVLMError):
    """A prompt, or a prompt with its answer, longer than the model's context."""


class RequestCancelled(MobileVLMError):
    """The caller withdrew the request."""


class RequestTimeout(MobileVLMError):
    """The request ran past its deadline."""


class NodeGone(RequestTimeout):
    """The node that was asked ended before it answered: no answer will come."""


class Busy(MobileVLMError):
    """The queue is full; try again later."""


def contained(error: BaseException) -> Exception:
    """The error itself, or an EngineError in place of what would end a process: a native library's panic, an
    exit. What serves everybody reports it as any other error and goes on; only a signal ends a node.
    """
    if isinstance(error, Exception):
        return error
    wrapped = EngineError(f"a library of the engine gave up: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def without_frames(error: E) -> E:
    """The error without its traceback, for whoever keeps it: the frames of a traceback hold their variables
    (a camera's picture, a KV cache), often the error among them, until Python's collector comes round.
    """
    return error.with_traceback(None)


class DataError(MobileVLMError, ValueError):
    """Training data that cannot be used: malformed, missing, too long, empty."""


class RecipeError(ConfigurationError):
    """A training recipe that cannot be used: unknown keys, values out of range, parts that do not fit."""


class TrainingError(MobileVLMError):
    """A training run that had to stop. The message says at which step, why, and where to go on from."""
