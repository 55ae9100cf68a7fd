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
from collections.abc import Generator
from tempfile import TemporaryFile
from time import monotonic
from typing import Any

from mobilevlm_ros.errors import Busy

SECONDS = 3
"""Processor time that it may take. A schema of everyday size takes a few milliseconds, starting Python a
tenth of a second."""

PROBE_TIMEOUT = 20.0
"""Seconds until a process that gets no processor is given up."""

BYTES = 1 << 30
STEPS = 32
"""Tokens to write by it: enough to meet the limits of the parser."""

_LOOK = 0.02  # seconds between two looks at the process


def probe(grammar: str, seconds: int = SECONDS) -> Generator[str, None, str]:
    """Why a grammar (as llguidance takes it) cannot be used; the empty string if it can.

    Yields '' while it waits; closing it ends the process. Raises Busy when the process gets no processor.
    """
    program = [sys.executable, "-m", "mobilevlm_ros.inference.structured.schema_probe", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # finds what we found
    end, said = monotonic() + PROBE_TIMEOUT, None
    with TemporaryFile() as text:
        text.write(grammar.encode())
        text.seek(0)
        with subprocess.Popen(
            program, stdin=text, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            try:
                while said is None:
                    try:
                        said, _ = process.communicate(timeout=_LOOK)
                    except subprocess.TimeoutExpired:
                        if monotonic() > end:
                            raise Busy(
                                "the format of the answer could not be tried: the machine is overloaded"
                            ) from None
                        yield ""
            finally:
                process.kill()
    if process.returncode == 0:
        return ""
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it is too complex: compiling it takes more than {seconds} s of processor time"
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
