# SPDX-License-Identifier: Apache-2.0
"""What all command lines share: how they read their arguments, and how they say what is wrong with them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?(,[-+.\de]*)?|-inf(inity)?|-nan", re.IGNORECASE)
_PLAIN = re.compile(r"-\d+|-\d*\.\d+")  # which argparse takes for numbers, several after one option too


class Parser(argparse.ArgumentParser):
    """Says what is wrong in two lines: how the command is called, and what to do.

    Args:
        hint: the end of the second line, such as '`mobilevlm help ask` has examples'.
    """

    def __init__(self, *args: object, hint: str = "", **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.hint = hint

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2."""
        usage = " ".join(self.brief().split())
        hint = f"; {self.hint}" if self.hint else ""
        self.exit(2, f"{usage}\n{self.prog.split()[0]}: error: {message}{hint}\n")

    def brief(self) -> str:
        """The usage without the options, which `--help` lists."""
        if self.usage:
            return f"usage: {self.usage}"
        words = [str(action.metavar or action.dest) for action in self._get_positional_actions()]
        return f"usage: {self.prog} {' '.join(words)} [options]"


def with_negative_numbers(argv: Sequence[str]) -> list[str]:
    """`--minimum -1e3` as `--minimum=-1e3`: argparse takes what begins with a dash for an option, but for
    plain numbers.
    """
    joined: list[str] = []
    for word in argv:
        before = joined[-1] if joined else ""
        negative = _NEGATIVE.fullmatch(word) and not _PLAIN.fullmatch(word)
        if negative and before.startswith("--") and "=" not in before and len(before) > 2:
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def tolerate_any_terminal() -> None:
    """What the terminal's encoding lacks is printed as an escape such as \\u2713, instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
