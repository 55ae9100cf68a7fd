# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm`: the command line that needs no ROS. Each verb is a module below mobilevlm_ros.commands."""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
from collections.abc import Sequence

from mobilevlm_ros.arguments import Parser, tolerate_any_terminal, with_negative_numbers
from mobilevlm_ros.commands.verbs import VERBS, module_of, parser_of
from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.version import __version__

DESCRIPTION = "Ask a robot's cameras questions in plain language, on the machine it carries."

BUILD_PACKAGES = ("torch", "onnx", "safetensors", "gguf", "huggingface_hub", "peft")
"""Packages that only building and training need."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns the exit status: 0, 1 for an error (one line on stderr), 130 if interrupted."""
    tolerate_any_terminal()
    argv = with_negative_numbers(sys.argv[1:] if argv is None else argv)
    verb, rest = _verb(argv)
    command = parser_of(verb)
    any_order = getattr(module_of(verb), "ANY_ORDER", False)
    args = (command.parse_intermixed_args if any_order else command.parse_args)(rest)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was begun is cleaned up
    try:
        status: int = module_of(verb).main(args)
    except MobileVLMError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")
        return 130
    except BrokenPipeError:  # whoever read our output has had enough
        return 0
    except ModuleNotFoundError as error:
        if error.name not in BUILD_PACKAGES:
            raise
        extra = "train" if verb in ("train", "merge", "tokenize") else "build"
        return _fail(
            f"`{verb}` needs {error.name}, which serving does not; pip install 'mobilevlm_ros[{extra}]'"
        )
    except OSError as error:
        return _fail(str(error))
    return status


def _verb(argv: list[str]) -> tuple[str, list[str]]:
    """The verb and what follows it. Ends the program where there is none, after help or a usage error."""
    parser = Parser(
        prog="mobilevlm",
        description=DESCRIPTION,
        usage="mobilevlm VERB ...",
        epilog="\n".join(
            (
                "verbs:",
                *(f"  {name:16} {text}" for name, text in VERBS.items()),
                "",
                "`mobilevlm help VERB` tells more, with examples.",
            )
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        hint="`mobilevlm help` lists the verbs",
    )
    parser.add_argument("--version", action="version", version=f"mobilevlm {__version__}")
    parser.add_argument("verb", metavar="VERB", nargs="?", help=argparse.SUPPRESS)
    if argv and argv[0] == "help":
        argv = [*argv[1:], "--help"]
    verb = next((word for word in argv if not word.startswith("-")), None)
    if verb in VERBS:
        at = argv.index(verb)
        return verb, argv[:at] + argv[at + 1 :]
    parser.parse_known_args(
        argv if verb is None else argv[: argv.index(verb)]
    )  # --help and --version end here
    if verb is None:
        parser.error("the verb is missing")
    near = difflib.get_close_matches(verb, VERBS, 1)
    parser.error(f"there is no verb {verb!r}" + (f" (did you mean {near[0]}?)" if near else ""))


def _fail(message: str) -> int:
    print("mobilevlm: error: " + " ".join(message.split()), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
