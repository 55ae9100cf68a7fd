# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm ask-bag BAG... QUESTION`: the same question about each frame of a recording."""

from __future__ import annotations

import argparse
from pathlib import Path

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.bags import bag_options
from mobilevlm_ros.errors import OptionError

ANY_ORDER = True
"""Words and options may be mixed."""

USAGE = "mobilevlm ask-bag BAG... QUESTION [--choices yes no] [-o OUT] [--plot [PNG]] [options]"

_ENDINGS = (".mcap", ".db3", ".bag", ".zstd", ".active")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.usage = USAGE
    parser.add_argument(
        "words", nargs="+", metavar="BAG... QUESTION", help=f"{bag_options.BAG_HELP}; and the question"
    )
    parser.add_argument(
        "--choices",
        nargs="+",
        default=[],
        metavar="CHOICE",
        help="answer with one of these, and give a probability for each",
    )
    bag_options.add_output(parser, required=False)
    bag_options.add_bag_plot(parser)
    bag_options.add_selection(parser, "seconds between questions about a camera (default: every frame)")
    parser.add_argument(
        "--abstain-threshold", type=float, default=0.0, metavar="P", help="withhold a less sure answer"
    )
    parser.add_argument("--max-tokens", type=int, default=64, help="longest answer (default: 64)")
    parser.add_argument("--system-prompt", default="", metavar="TEXT", help="text before the question")
    options.add_bundle(parser)
    options.add_runtime(parser)
    bag_options.add_ray(parser)
    parser.set_defaults(kind="answer")


def main(args: argparse.Namespace) -> int:
    """Asks; prints each answer, or with -o a summary."""
    bag_options.check_installed()
    from mobilevlm_ros.bags.job.job import questions_job
    from mobilevlm_ros.inference.types import Request, SamplingParams

    args.bags, question, choices = split_words(args.words, args.choices)
    request = Request(
        question,
        choices=tuple(choices),
        abstain_threshold=args.abstain_threshold,
        system_prompt=args.system_prompt,
        sampling=SamplingParams(max_tokens=args.max_tokens),
    )
    chosen, model = bag_options.selection_of(args), bag_options.model_of(args)
    bag_options.check_places(args, args.bags)
    runtime = model.load()
    make = questions_job("answer", [request], chosen, model, runtime.bundle.manifest.model_id)
    return bag_options.run_jobs(args, args.bags, make, runtime)


def split_words(words: list[str], choices: list[str]) -> tuple[list[Path], str, list[str]]:
    """(recordings, question, choices) of the words between the options.

    `--choices` takes all words that follow it: the last of them are the question and recordings where these
    are missing. Raises OptionError where one is missing, or for two questions.
    """
    choices = list(choices)
    bags = [word for word in words if is_bag(word)]
    texts = [word for word in words if not is_bag(word)]
    while len(choices) > 2 and (is_bag(choices[-1]) or not texts):
        word = choices.pop()
        (bags if is_bag(word) else texts).append(word)
    if not bags:
        raise OptionError("the recording is missing: mobilevlm ask-bag BAG QUESTION")
    if not texts:
        raise OptionError("the question is missing: mobilevlm ask-bag BAG QUESTION")
    if len(texts) > 1:
        raise OptionError(
            f"two questions were given: {texts[0]!r} and {texts[1]!r}; quote a question that has spaces"
        )
    return [Path(bag) for bag in bags], texts[0], choices


def is_bag(word: str) -> bool:
    """Whether a word names a recording, rather than being a question."""
    try:
        return word.endswith(_ENDINGS) or Path(word).exists()
    except (OSError, ValueError):  # too long for a path, or a NUL
        return False
