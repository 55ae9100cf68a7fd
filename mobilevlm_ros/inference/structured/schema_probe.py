# SPDX-License-Identifier: Apache-2.0
"""Tries out a grammar in a process of its own, where it may hang, crash or eat memory without harm.

Some schemas of a few bytes keep the compiler busy for hours (intersections of large `multipleOf`), and
nothing can stop it from within. Run as a program, this reads a grammar from standard input and exits with 0,
or writes why it cannot be used.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import Future
from tempfile import TemporaryFile
from time import monotonic
from typing import Any

from mobilevlm_ros.errors import Busy
from mobilevlm_ros.inference.job import Pause

SECONDS = 3
"""Processor time that it may take. A schema of everyday size takes a few milliseconds, starting Python a
tenth of a second."""

PROBE_TIMEOUT = 20.0
"""Seconds until a process that gets no processor is given up."""

AT_ONCE = 2
"""Grammars that are tried at the same time, so that the processor is left to the answers."""

WAITING = 16
"""Grammars that are tried or wait for it; more get Busy."""

NICENESS = 5
"""Of the process: answers go first."""

BYTES = 1 << 30
STEPS = 32
"""Tokens to write by it: enough to meet the limits of the parser."""

_LOOK = 0.02  # seconds between two looks at the process


def probe(grammar: str, seconds: int = SECONDS) -> Generator[str, None, str]:
    """Why a grammar (as llguidance takes it) cannot be used; the empty string if it can.

    Yields a `Pause` while it waits; closing it ends the process. Raises Busy when the process gets no
    processor, or too many others wait for theirs.
    """
    trial = _Trial(grammar, seconds)
    try:
        while not trial.said.done():
            pause = Pause(trial.said)
            yield pause
            pause.wait(_LOOK)  # for those who step it at once
        return trial.said.result()
    finally:
        trial.abandoned.set()


class _Trial(threading.Thread):
    """Tries a grammar out, when its turn comes; `said` gets what `probe` returns or raises."""

    _turns = threading.Semaphore(AT_ONCE)
    _alive = threading.Semaphore(WAITING)

    def __init__(self, grammar: str, seconds: int) -> None:
        super().__init__(name="schema-probe", daemon=True)
        if not self._alive.acquire(blocking=False):
            raise Busy("too many new formats are being tried out: ask again later")
        self.said: Future[str] = Future()
        self.abandoned = threading.Event()
        self._grammar, self._seconds = grammar, seconds
        self.start()

    def run(self) -> None:
        try:
            with self._turns:
                said = "" if self.abandoned.is_set() else self._tried()
        except BaseException as error:
            self.said.set_exception(error)
        else:
            self.said.set_result(said)
        finally:
            self._alive.release()

    def _tried(self) -> str:
        module = "mobilevlm_ros.inference.structured.schema_probe"
        program = [sys.executable, "-m", module, str(self._seconds)]
        path = os.pathsep.join(filter(None, sys.path))  # finds what we found
        end, said = monotonic() + PROBE_TIMEOUT, None
        with TemporaryFile() as text:
            text.write(self._grammar.encode())
            text.seek(0)
            with subprocess.Popen(
                program,
                stdin=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            ) as process:
                try:
                    while said is None:
                        try:
                            said, _ = process.communicate(timeout=_LOOK)
                        except subprocess.TimeoutExpired:
                            if self.abandoned.is_set():
                                return ""
                            if monotonic() > end:
                                raise Busy(
                                    "the format of the answer could not be tried: the machine is overloaded"
                                ) from None
                finally:
                    process.kill()
        if process.returncode == 0:
            return ""
        if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"it is too complex: compiling it takes more than {self._seconds} s of processor time"
        complaint = said.decode("utf-8", "replace").strip()
        return complaint or "it is too complex: compiling it takes too much memory or nesting"


class ByteTokenizer:
    """A tokenizer of 256 bytes and an end token, as llguidance expects one."""

    is_tokenizer_wrapper = True
    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([value]) for value in range(256)), b"</s>")
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        """Ids of a text: its bytes."""
        return list(text.encode() if isinstance(text, str) else text)


def _main() -> int:
    import resource

    import llguidance

    seconds = int(sys.argv[1])
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    vocabulary: Any = ByteTokenizer()  # whatever has its attributes will do
    tokenizer = llguidance.LLTokenizer(vocabulary, slices=[])
    matcher = llguidance.LLMatcher(tokenizer, sys.stdin.read(), log_level=0)
    for _ in range(STEPS):
        allowed = matcher.compute_bitmask()
        if matcher.is_error() or matcher.is_stopped():
            break
        token = next((i for i in range(257) if allowed[i // 8] >> (i % 8) & 1), None)
        if token is None or not matcher.consume_token(token):
            break
    if matcher.is_error():
        print(matcher.get_error())
        return 1
    if matcher.is_stopped() and not matcher.is_accepting():
        print("no answer can be completed by it")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
