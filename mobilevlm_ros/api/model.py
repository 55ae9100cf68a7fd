# SPDX-License-Identifier: Apache-2.0
"""The model in three lines of Python: `MobileVLM().ask("photo.jpg", "What is on the table?")`."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from mobilevlm_ros.api.chat import Chat
from mobilevlm_ros.api.options import AskOptions, request_of, shortened
from mobilevlm_ros.api.picture import frames_of
from mobilevlm_ros.api.stream import Stream
from mobilevlm_ros.checkpoints.hub import is_hub_id
from mobilevlm_ros.engine.bundle import MANIFEST
from mobilevlm_ros.engine.runtime import AUTO, TORCH, load_runtime
from mobilevlm_ros.errors import BundleError, EngineError, OptionError, QuestionError, RequestTimeout
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.sessions import Session
from mobilevlm_ros.inference.job import Pause
from mobilevlm_ros.inference.steps import finish
from mobilevlm_ros.inference.types import Answer, Request
from mobilevlm_ros.inference.validate import check_system_prompt

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mobilevlm_ros.api.picture import Pictures

T = TypeVar("T")

_LOOK = 0.02  # seconds between looks at the timeout while the model has nothing to do


class MobileVLM:
    """A vision-language model, ready to answer questions about pictures.

        vlm = MobileVLM("~/bundles/v2-1.7b")
        answer = vlm.ask("door.jpg", "Is the door open?", choices=["yes", "no"])
        print(answer, answer.probabilities["yes"])
        print(vlm.ask(["before.jpg", "after.jpg"], "Did the door move?"))

    A picture is a NumPy array u8[H, W, 3] in RGB (OpenCV reads BGR: turn it with `image[..., ::-1]`), a PIL
    image, or the path of a file. What a picture needed to be read is kept, so a second question about it is
    answered faster. Threads may share a model: their questions take turns, token by token.

    Args:
        model: a bundle's directory; a checkpoint's directory or hub id, such as mtgv/MobileVLM_V2-1.7B, which
            PyTorch runs in float32 (slow: `mobilevlm build` makes a bundle of it); None: the small `nano`
            model that comes with the package and knows simulated road scenes. `~` is your home directory.
        backend: 'auto' takes the fastest that works here; or 'onnxruntime', 'tensorrt', 'torch', ...
        threads: CPU threads; 0: one per physical core.
        system_prompt: text before a conversation that has none of its own; empty: the one the model was
            trained with.

    Raises:
        BundleError, CheckpointError: there is no such model, or its files are damaged.
        EngineError: the backend cannot run it.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        backend: str = AUTO,
        threads: int = 0,
        system_prompt: str = "",
    ) -> None:
        path = None if model is None else _model_path(model)
        if path is not None and backend == AUTO and not (path / MANIFEST).exists():
            backend = _backend_of(path)
        runtime = load_runtime(path, backend, threads)
        self._name = runtime.bundle.manifest.name
        self._backend = runtime.backend_name
        self._context = runtime.language.max_length
        self._loaded: Assistant | None = Assistant(runtime, system_prompt=system_prompt)
        self._lock = threading.RLock()  # a stream may be collected, and so closed, in the midst of a step

    @property
    def name(self) -> str:
        """Of the model, such as 'nano'."""
        return self._name

    @property
    def backend(self) -> str:
        """What runs it, such as 'onnxruntime-cpu'."""
        return self._backend

    def ask(self, image: Pictures, question: str | Request, **options: Unpack[AskOptions]) -> Answer:
        """The answer to a question about a picture, or about several at once.

        Args:
            image: NumPy RGB u8[H, W, 3], PIL image, or path of a picture file; or a list of up to 16 of them,
                oldest first. The model reads them all before the question.
            question: plain language, 1 to 2000 characters.
            options: see `AskOptions`.

        Raises:
            ImageError: the picture cannot be used.
            QuestionError: the question or an option cannot be used; the message says what to give instead.
            RequestTimeout: `timeout` was over before the answer was complete.
            ContextOverflow: pictures, question and choices are too long for the model's context.
            EngineError: the model failed, or was closed.
        """
        return self.stream(image, question, **options).wait()

    def stream(self, image: Pictures, question: str | Request, **options: Unpack[AskOptions]) -> Stream:
        """The answer, piece by piece: `for piece in vlm.stream(image, "Describe the scene."): ...`.

        Leaving the loop stops the model at the next token. Arguments and errors as for `ask`.
        """
        return self._stream(image, question, options, None)

    def ask_many(
        self, image: Pictures, questions: Sequence[str | Request], **options: Unpack[AskOptions]
    ) -> list[Answer]:
        """Answers to several questions about one picture (or the same several), in their order.

        The picture is encoded once, and the questions are read and answered side by side.

        Args:
            image: as for `ask`.
            questions: plain language, or `Request`s where they need options of their own.
            options: for all questions that are given as text.

        Raises:
            MobileVLMError: as `ask`.
        """
        if isinstance(questions, (str, Request)):
            raise QuestionError(
                f"questions is one question: give a list, [{shortened(questions)}], or call ask() instead"
            )
        timeout = options.get("timeout")
        requests = [request_of(question, options) for question in questions]
        steps = self._assistant.steps_many(frames_of(image), requests)
        return self._run(steps, timeout) if requests else []

    def chat(self, image: Pictures | None = None, *, system_prompt: str = "") -> Chat:
        """A conversation about a picture, or a list of them: each question may refer to the ones before.

        Args:
            image: what it is about, as for `ask`; None: the first question brings it.
            system_prompt: text before the conversation.
        """
        session = Session("chat", token_budget=self._context)
        session.system_prompt = check_system_prompt(system_prompt)
        return Chat(self._stream, session, () if image is None else frames_of(image))

    def close(self) -> None:
        """Free the model's memory. Questions raise EngineError afterwards; closing twice does no harm."""
        with self._lock:
            self._loaded = None

    def __enter__(self) -> MobileVLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"MobileVLM({self.name!r}, {self.backend if self._loaded else 'closed'})"

    @property
    def _assistant(self) -> Assistant:
        if self._loaded is None:
            raise EngineError(f"the model {self.name!r} was closed: make a new MobileVLM")
        return self._loaded

    def _stream(
        self, image: Pictures, question: str | Request, options: AskOptions, session: Session | None
    ) -> Stream:
        extra = sorted(set(options) - {"timeout"})
        if isinstance(question, Request) and extra:
            raise OptionError(f"{', '.join(extra)} is given beside a Request: put it into the Request")
        request = request_of(question, options)
        steps = self._assistant.steps(frames_of(image), request, session)
        return Stream(self._deltas(steps, options.get("timeout")), request)

    def _deltas(
        self, steps: Generator[str, None, T], timeout: float | None = None
    ) -> Generator[str, None, T]:
        """The steps of an answer, each with the model to itself."""
        deadline = None if timeout is None else monotonic() + timeout
        try:
            while True:
                with self._lock:
                    if self._loaded is None:
                        raise EngineError(f"the model {self.name!r} was closed while it was answering")
                    if deadline is not None and monotonic() >= deadline:
                        raise RequestTimeout(
                            f"the answer was not complete after {timeout:g} s: allow more time, or ask for "
                            "fewer tokens"
                        )
                    delta = next(steps)
                if isinstance(delta, Pause):
                    delta.wait(_LOOK)  # others may have the model meanwhile
                yield delta
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            with self._lock:
                steps.close()

    def _run(self, steps: Generator[str, None, T], timeout: float | None) -> T:
        return finish(self._deltas(steps, timeout))


def _model_path(model: str | Path) -> Path:
    if not isinstance(model, (str, Path)):
        raise BundleError(
            f"model is a {type(model).__name__}: give the directory of a bundle or checkpoint, a hub id, or "
            "nothing for nano"
        )
    return Path(model).expanduser()


def _backend_of(path: Path) -> str:
    """What runs a model that is no bundle. Raises BundleError where there is none."""
    if is_hub_id(path) or (path / "config.json").exists():
        return TORCH
    if path.suffix == ".gguf":
        raise BundleError(
            f"{path} is a GGUF file: build a bundle of it, `mobilevlm build {path} -o DIRECTORY`"
        )
    if path.is_dir():
        raise BundleError(
            f"{path} is neither a bundle (it has no {MANIFEST}) nor a checkpoint (it has no config.json): "
            "name the directory itself, or build a bundle with `mobilevlm build`"
        )
    if path.exists():
        raise BundleError(f"{path} is a file: give the directory of a bundle or a checkpoint")
    raise BundleError(
        f"{path} does not exist: give the directory of a bundle or a checkpoint, a hub id such as "
        "mtgv/MobileVLM_V2-1.7B, or nothing for nano"
    )
