# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm`: the command line that needs no ROS. Each verb is a module of mobilevlm_ros.commands."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.version import __version__

DESCRIPTION = "Ask a robot's cameras questions in plain language, on the machine it carries."

VERBS = {
    "ask": "ask a question about a picture",
    "build": "make a bundle, which a robot can serve, from a checkpoint",
    "serve": "answer over HTTP (OpenAI-compatible), with a web page",
    "info": "describe a bundle: model, precision, sizes, quality, backends",
    "compile": "make a bundle's TensorRT plans on this machine, before the robot needs them",
    "train": "train a model",
    "eval": "measure how often a model answers right",
    "calibrate": "fit on labelled pictures how sure a model may be of its choices",
    "bench": "measure how fast a model is on this machine",
    "trace": "write every intermediate result of one answer, to compare implementations",
    "export-gguf": "write a checkpoint as GGUF files, for llama.cpp",
    "make-checkpoint": "write a checkpoint with random weights, for tests and benchmarks",
}
"""Verb to one-line help, as `mobilevlm --help` lists them; `make-checkpoint` is make_checkpoint.py."""

BUILD_PACKAGES = ("torch", "onnx", "safetensors", "gguf", "huggingface_hub")
"""Packages that only building and training need."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns the exit status: 0, 1 for an error (one line on stderr), 130 if interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in argv if not word.startswith("-")), "")
    parser = argparse.ArgumentParser(prog="mobilevlm", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"mobilevlm {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, help_text in VERBS.items():
        command = verbs.add_parser(
            name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
        )
        if name == verb:  # the others need not be imported
            _module(name).add_arguments(command)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was begun is cleaned up
    try:
        status: int = _module(args.verb).main(args)
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
        return _fail(
            f"`{args.verb}` needs {error.name}, which serving does not; pip install 'mobilevlm_ros[build]'"
        )
    except OSError as error:
        return _fail(str(error))
    return status


def _module(verb: str) -> Any:
    return importlib.import_module(f"mobilevlm_ros.commands.{verb.replace('-', '_')}")


def _fail(message: str) -> int:
    print("mobilevlm: error: " + " ".join(message.split()), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
