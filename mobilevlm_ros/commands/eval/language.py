# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval language --tasks arc_easy,piqa`: the language model alone, by lm-evaluation-harness."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.eval.models import add_model_arguments, runtimes
from mobilevlm_ros.errors import OptionError

PAPER = "arc_challenge,arc_easy,boolq,rte,winogrande,truthfulqa_mc1,truthfulqa_mc2,hellaswag,piqa"
"""The zero-shot tasks of table 3 (arXiv 2312.16886); MMLU is 5-shot there: a run of its own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--tasks", default=PAPER, help=f"separated by commas (default: {PAPER})")
    parser.add_argument("--num-fewshot", type=int, help="examples before each question (default: the task's)")
    parser.add_argument("--limit", type=int, help="only the first N of each task")
    parser.add_argument(
        "--include-path",
        type=Path,
        metavar="DIR",
        help="only tasks from YAML files of yours; needs no network",
    )
    parser.add_argument("--no-bos", action="store_true", help="do not begin contexts with <s>")
    add_model_arguments(parser)
    options.add_json(parser, "the results, as the last line,")


def main(args: argparse.Namespace) -> int:
    """The harness's table goes to stdout; data sets come from its hub or its cache."""
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
        from lm_eval.utils import make_table

        from mobilevlm_ros.evaluation.harness.language_model import LanguageModel
    except ImportError as error:
        raise OptionError(
            f"`eval language` needs lm-eval ({error}); pip install 'mobilevlm_ros[eval-language]'"
        ) from error
    where = {} if args.include_path is None else {"include_path": str(args.include_path)}
    manager = TaskManager(include_defaults=args.include_path is None, **where)
    tasks = [name for name in args.tasks.split(",") if name]
    unknown = [name for name in tasks if name not in manager.all_tasks]
    if unknown or not tasks:
        raise OptionError(f"there is no task {', '.join(unknown) or args.tasks!r}: see `lm_eval ls tasks`")
    for runtime in runtimes(args):
        found = lm_eval.simple_evaluate(
            LanguageModel(runtime, add_bos=not args.no_bos),
            tasks=tasks,
            num_fewshot=args.num_fewshot,
            limit=args.limit,
            task_manager=manager,
            bootstrap_iters=1000,
            log_samples=False,
        )
        name = f"{runtime.bundle.manifest.name} ({runtime.backend_name})"
        if args.json:
            told = {"model": name, "results": found["results"], "n-samples": found["n-samples"]}
            print(json.dumps(told, default=str))
        else:
            print(f"{name}\n{make_table(found)}")
    return 0
