# SPDX-License-Identifier: Apache-2.0
"""What a question of the server holds goes with its answer, however it ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.inference.types import Frame, Request, SamplingParams
from mobilevlm_ros.server.services.local_service import LocalService
from mobilevlm_ros.server.services.service import Question

ENDINGS = ["answered", "closed by the client", "late", "broken", "refused"]


@pytest.fixture(scope="module")
def service(any_bundle: Path) -> Iterator[LocalService]:
    made = LocalService(load_runtime(any_bundle, "onnxruntime-cpu", threads=1))
    yield made
    asyncio.run(made.close())


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_picture_of_a_question_is_left(
    service: LocalService, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's collector is off: what refers to itself would stay for hundreds of questions."""
    pictures: list[weakref.ref[Frame]] = []

    def frames(*_: Any) -> tuple[Frame, ...]:
        made = Frame(np.full((48, 64, 3), 90, np.uint8))
        pictures.append(weakref.ref(made))
        if ending == "broken":
            raise RuntimeError("broken")
        return (made,)

    monkeypatch.setattr(service, "_frames", frames)

    async def ask(words: str, tokens: int, timeout: float = 60.0, to_the_end: bool = True) -> None:
        request = Request(words, sampling=SamplingParams(max_tokens=tokens))
        with suppress(MobileVLMError, RuntimeError):
            async with aclosing(service.ask(Question(request, timeout=timeout))) as pieces:
                async for _ in pieces:
                    if not to_the_end:
                        break

    async def ask_twice() -> None:
        words = "" if ending == "refused" else "What is it?"
        await ask(words, 16, 0.0 if ending == "late" else 60.0, ending != "closed by the client")
        await ask("Is it?", 1)  # once it has ended, so have the steps of the one before

    gc.collect()
    gc.disable()
    try:
        asyncio.run(ask_twice())
        assert len(pictures) == (1 if ending == "late" else 2)
        assert [made() for made in pictures] == [None] * len(pictures)
    finally:
        gc.enable()
