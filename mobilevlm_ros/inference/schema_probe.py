# SPDX-License-Identifier: Apache-2.0
"""Tries out a grammar in a process of its own, where it may hang, crash or eat memory without harm.

Some schemas of a few bytes keep the compiler busy for hours (intersections of large `multipleOf`), and
nothing can stop it from within. Run as a program, this reads a grammar from standard input and exits with 0,
or writes why it cannot be used.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 5.0
"""Time limit. A schema of everyday size takes a few milliseconds, starting Python a tenth of a second."""

BYTES = 1 << 30
STEPS = 32
"""Tokens to write by it: enough to meet the limits of the parser."""


def probe(grammar: str, seconds: float = SECONDS) -> str:
    """Why a grammar (JSON, as llguidance makes it) cannot be used; the empty string if it can."""
    try:
        done = subprocess.run(
            # Not as a file: its folder would come first on the path, and its types.py hide Python's own.
            [sys.executable, "-c", Path(__file__).read_text(encoding="utf-8")],
            input=grammar.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it is too complex: compiling it takes more than {seconds:g} s"
    if done.returncode == 0:
        return ""
    said = done.stdout.decode("utf-8", "replace").strip()
    return said or "it is too complex: compiling it takes too much memory or nesting"


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

    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    vocabulary: Any = ByteTokenizer()  # whatever has its attributes will do
    tokenizer = llguidance.LLTokenizer(vocabulary, slices=[])
    matcher = llguidance.LLMatcher(tokenizer, sys.stdin.read(), log_level=0)
    for _ in range(STEPS):
        allowed = matcher.compute_bitmask()
        if matcher.is_error() or matcher.is_stopped():
            break
        token = next(i for i in range(257) if allowed[i // 8] >> (i % 8) & 1)
        matcher.consume_token(token)
    if matcher.is_error():
        print(matcher.get_error())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
