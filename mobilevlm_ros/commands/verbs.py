# SPDX-License-Identifier: Apache-2.0
"""The verbs of `mobilevlm`: what each does, how it is called, and its parser."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from mobilevlm_ros.arguments import Parser

VERBS = {
    "ask": "ask a question about a picture",
    "build": "make a bundle, which a robot can serve, from a checkpoint",
    "serve": "answer over HTTP (OpenAI-compatible), with a web page",
    "mcp": "let an agent look through the cameras (Model Context Protocol)",
    "index": "make a memory that one can search of what was said about recordings",
    "search": "find in a memory, or a node's, what is described in plain words",
    "info": "describe a bundle: model, precision, sizes, quality, backends",
    "compile": "make a bundle's TensorRT plans on this machine, before the robot needs them",
    "record-demo": "make a small recording of simulated scenes, to try the next verbs on",
    "caption-bag": "write a sentence about each frame of a recording (rosbag2, ROS 1)",
    "ask-bag": "ask the same question about each frame of a recording",
    "monitor-bag": "run the node's monitors over a recording",
    "bag-to-dataset": "make training data of a recording: pictures, LLaVA's JSON, a table to review",
    "train": "train a model: any stage of the paper, or adapters from your own pictures",
    "tokenize": "make token shards of text, for `train pretrain-llm`",
    "merge": "put trained adapters into their base: one checkpoint",
    "eval": "measure how often a model answers right",
    "calibrate": "fit on labelled pictures how sure a model may be of its choices",
    "bench": "measure how fast a model is on this machine",
    "tune": "find the number of threads that suits a bundle and this machine, and keep it",
    "trace": "write every intermediate result of one answer, to compare implementations",
    "export-gguf": "write a checkpoint as GGUF files, for llama.cpp",
    "make-checkpoint": "write a checkpoint with random weights, for tests and benchmarks",
    "checks": "say what is installed here, what is missing, and how to get it",
    "completion": "print a script that completes verbs and options in your shell",
}
"""Verb to one-line help, as `mobilevlm help` lists them."""

PACKAGES = {
    "serving": ("ask", "serve", "mcp"),
    "bundles": ("build", "info", "compile", "export-gguf", "make-checkpoint"),
    "bags": ("record-demo", "caption-bag", "ask-bag", "monitor-bag", "bag-to-dataset", "index", "search"),
    "training": ("train", "tokenize", "merge"),
    "measuring": ("calibrate", "bench", "tune", "trace"),
}
"""Where a verb's module is; the others stand beside this file. `make-checkpoint` is make_checkpoint.py."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "ask": (
        'mobilevlm ask photo.jpg "What is on the table?"',
        'mobilevlm ask photo.jpg "Is the door open?" --choices yes no',
        'mobilevlm ask "Is the door open?" --ros                     # what the robot sees',
        'mobilevlm ask pictures/ "Is there a person?" --choices yes no --json',
        'mobilevlm ask --frames before.jpg after.jpg "Did the ball move?"',
        'mobilevlm ask drive.mp4 "What is ahead?" --at 12.5',
        'camera | mobilevlm ask - "What is this?"',
    ),
    "build": (
        "mobilevlm build mtgv/MobileVLM_V2-1.7B -o ~/bundles/v2-1.7b",
        "mobilevlm build ./my-checkpoint -o ~/bundles/mine --calibration pictures/",
    ),
    "serve": (
        "mobilevlm serve --bundle ~/bundles/v2-1.7b",
        "mobilevlm serve --ros                             # the cameras of a running node",
        "mobilevlm serve --camera front=/dev/video0",
    ),
    "mcp": (
        "mobilevlm mcp --ros                               # the cameras of a running node",
        "mobilevlm mcp --camera front=/dev/video0",
        "mobilevlm mcp --ros --http --port 8081",
    ),
    "index": (
        "mobilevlm index out/",
        "mobilevlm index drive.captions.jsonl -o drive.db --thumbnails --odometry /odom",
    ),
    "search": (
        'mobilevlm search "a person near the forklift" --top 5',
        'mobilevlm search "where did you last see a red ball?" --camera front --sheet found.png',
        'mobilevlm search "an open door" --from 2026-03-01T12:00 --near 3.5,-2 --radius 4 --json',
        'mobilevlm search "a person" --ros                  # what the running node remembers',
    ),
    "info": ("mobilevlm info", "mobilevlm info ~/bundles/v2-1.7b --json"),
    "compile": ("mobilevlm compile ~/bundles/v2-1.7b",),
    "record-demo": (
        "mobilevlm record-demo -o demo.mcap",
        "mobilevlm record-demo -o two.mcap --camera front --camera rear",
    ),
    "caption-bag": (
        "mobilevlm caption-bag drive.mcap -o drive.captions.mcap --every 1.0 --novelty 0.05",
        "mobilevlm caption-bag bags/*.mcap -o out/ --camera /front/image_raw",
        "mobilevlm caption-bag bags/*.mcap -o out/ --ray auto    # on a Ray cluster",
    ),
    "ask-bag": (
        'mobilevlm ask-bag drive.mcap "Is there a person?" --choices yes no --from 12:03 --to 12:05 --plot',
        'mobilevlm ask-bag drive.bag "What is ahead?" --every 2 -o answers.mcap',
    ),
    "monitor-bag": ("mobilevlm monitor-bag drive.mcap --monitors monitors.yaml -o out.mcap --plot",),
    "bag-to-dataset": (
        "mobilevlm bag-to-dataset drive.answers.jsonl -o dataset/",
        "mobilevlm bag-to-dataset drive.answers.jsonl -o dataset/ --reviewed dataset/review.csv --overwrite",
        'mobilevlm bag-to-dataset drive.mcap --question "Is the gate open?" --choices yes no -o dataset/',
    ),
    "train": (
        "mobilevlm train lora --model mtgv/MobileVLM_V2-1.7B --data robot.json --images pics/ -o runs/gate",
        "mobilevlm train instruct --recipe recipes/mobilevlm_v2-1.7b-stage2.yaml --dry-run",
        "mobilevlm train lora --resume -o runs/gate",
        "mobilevlm train nano",
    ),
    "tokenize": ("mobilevlm tokenize wiki.jsonl --model ./mobilellama -o shards/wiki",),
    "merge": ("mobilevlm merge runs/gate -o checkpoints/gate",),
    "eval": (
        "mobilevlm eval nano --count 200",
        "mobilevlm eval pope --data ~/eval/pope --bundle ~/bundles/v2-1.7b",
        "mobilevlm eval pope --data ~/eval/pope --score-only answers.jsonl --json",
        "mobilevlm eval vqa my_robot.json --images pics/ --out exam/",
    ),
    "calibrate": ("mobilevlm calibrate labels.csv --bundle ~/bundles/v2-1.7b",),
    "bench": (
        "mobilevlm bench",
        "mobilevlm bench --bundle ~/bundles/v2-1.7b ~/bundles/v2-3b --plot bench.png",
    ),
    "tune": ("mobilevlm tune", "mobilevlm tune --bundle ~/bundles/block32 ~/bundles/block64"),
    "trace": ('mobilevlm trace ./my-checkpoint photo.jpg "What is this?" -o trace.npz',),
    "export-gguf": ("mobilevlm export-gguf mtgv/MobileVLM_V2-1.7B -o gguf/",),
    "checks": ("mobilevlm checks", "mobilevlm checks --bundle ~/bundles/v2-1.7b --json"),
    "completion": ("mobilevlm completion bash > ~/.local/share/bash-completion/completions/mobilevlm",),
    "make-checkpoint": ("mobilevlm make-checkpoint --like MobileVLM_V2-1.7B --random ./checkpoint",),
}
"""Commands for `mobilevlm help VERB`."""


def module_of(verb: str) -> Any:
    """The module that does it."""
    package = next((f"{name}." for name, verbs in PACKAGES.items() if verb in verbs), "")
    return importlib.import_module(f"mobilevlm_ros.commands.{package}{verb.replace('-', '_')}")


def parser_of(verb: str) -> Parser:
    """Reads what follows the verb."""
    text = VERBS[verb]
    examples = EXAMPLES.get(verb, ())
    made = Parser(
        prog=f"mobilevlm {verb}",
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="\n".join(("examples:", *(f"  {example}" for example in examples))) if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        hint=f"`mobilevlm help {verb}` has examples",
    )
    add_verb(verb, made)
    for action in made._actions:
        for name, part in (getattr(action, "choices", None) or {}).items() if _has_parts(action) else ():
            own = [one for one in examples if one.startswith(f"mobilevlm {verb} {name} ")] or examples
            part.epilog = "\n".join(("examples:", *(f"  {example}" for example in own)))
            part.formatter_class = argparse.RawDescriptionHelpFormatter
    return made


def _has_parts(action: argparse.Action) -> bool:
    """Whether words after the verb have parsers of their own, as `train lora`."""
    return isinstance(action, argparse._SubParsersAction)


def add_verb(verb: str, parser: argparse.ArgumentParser) -> None:
    """Gives a parser the arguments of a verb."""
    module_of(verb).add_arguments(parser)
