# SPDX-License-Identifier: Apache-2.0
"""Whatever a command writes: that it can be written is found out before the long work, and said by name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from mobilevlm_ros.bags.demo_recording import DemoOptions, record_demo
from mobilevlm_ros.cli import main
from mobilevlm_ros.commands.verbs import VERBS, parser_of

torch = pytest.importorskip("torch")

OUTPUTS = ("output", "out", "plot", "sheet", "write_pope")
"""Names of options that say where something is written."""

COMMANDS: dict[tuple[str, str], str] = {
    ("build", "output"): "build {tiny} --quality 0 --quiet -o {at}",
    ("index", "output"): "index {records} -o {at}",
    ("search", "sheet"): "search person --memory {memory} --sheet {at}.png",
    ("record-demo", "output"): "record-demo -o {at}.mcap",
    ("caption-bag", "output"): "caption-bag {bag} -o {at}.mcap",
    ("ask-bag", "output"): "ask-bag {bag} Who? -o {at}.mcap",
    ("ask-bag", "plot"): "ask-bag {bag} Who? --plot {at}.png",
    ("monitor-bag", "output"): "monitor-bag {bag} --monitors {monitors} -o {at}/",
    ("monitor-bag", "plot"): "monitor-bag {bag} --monitors {monitors} --plot {at}.svg",
    ("bag-to-dataset", "output"): "bag-to-dataset {bag} -o {at}",
    ("train lora", "output"): "train lora --model {tiny} --data {samples} --images . -o {at}",
    ("train instruct", "output"): "train instruct --model {tiny} --data {samples} --images . -o {at}",
    ("train align", "output"): "train align --model {tiny} --data {samples} --images . -o {at}",
    ("train sft", "output"): "train sft --model {tiny} --data {samples} -o {at}",
    ("train pretrain-llm", "output"): "train pretrain-llm --model {tiny} --data {samples} -o {at}",
    ("train nano", "output"): "train nano --work {work} -o {at}",
    ("train replay", "output"): "train replay {stage} --checkpoints {tiny} -o {at}",
    ("tokenize", "output"): "tokenize {text} --model {tiny} --quiet -o {at}",
    ("merge", "output"): "merge {adapter} -o {at}",
    **{
        (f"eval {name}", "out"): f"eval {name} --data {{pope}} --out {{at}}"
        for name in ("gqa", "sqa", "textvqa", "pope", "mme", "mmbench")
    },
    ("eval all", "out"): "eval all --data {root} --out {at}",
    ("eval all", "plot"): "eval all --data {root} --out {work} --plot {at}.png",
    ("eval report", "plot"): "eval report {runs} --plot {at}.png",
    ("eval vqa", "out"): "eval vqa {exam} --out {at}",
    ("eval nano", "out"): "eval nano --count 2 --pairs 0 --foreign 0 --out {at}",
    ("eval nano", "write_pope"): "eval nano --pictures 1 --write-pope {at}",
    ("calibrate", "plot"): "calibrate nano --count 40 --plot {at}.png",
    ("bench", "plot"): "bench --plot {at}.png",
    ("trace", "output"): "trace {tiny} {picture} What? -o {at}.npz",
    ("export-gguf", "output"): "export-gguf {ldpnet} --quiet -o {at}",
    ("make-checkpoint", "output"): "make-checkpoint --like tiny --random {at} --quiet",
}
"""By verb and option; {at} is where nothing can be written."""

LIKE_POPE = {"eval gqa", "eval sqa", "eval textvqa", "eval mme", "eval mmbench"}
"""One code with POPE, once their data are read."""


def options(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from options(inner, f"{name} {word}")
        elif action.dest in OUTPUTS:
            yield name, action.dest


def test_the_table_has_every_output_of_every_verb() -> None:
    assert {found for verb in VERBS for found in options(parser_of(verb), verb)} == set(COMMANDS)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the commands read."""
    made = tmp_path_factory.mktemp("inputs")
    data = Path(__file__).parents[1] / "data"
    paths = {name: made / name for name in ("exam", "samples", "text", "monitors", "adapter", "records")}
    paths |= {"bag": made / "one.mcap", "work": made / "work", "runs": made / "runs"}
    record_demo(paths["bag"], DemoOptions(0.5, 2.0, ("front",), 0, 0.0, False, 64, 48, 90))
    paths["picture"] = data / "parity" / "images" / "landscape.png"
    paths["ldpnet"] = data / "parity" / "ckpt" / "tiny-ldpnet"
    (paths["exam"]).write_text(json.dumps([{"image": str(paths["picture"]), "question": "?", "answer": "a"}]))
    paths["exam"] = paths["exam"].rename(made / "exam.json")
    paths["samples"].write_text("[]")
    paths["text"].write_text("words")
    paths["text"] = paths["text"].rename(made / "text.txt")
    paths["monitors"].write_text("monitors:\n  - {name: a, question: 'Is it?'}")
    paths["adapter"].mkdir()
    (paths["adapter"] / "adapter_config.json").write_text("{}")
    paths["records"].mkdir()
    (paths["records"] / "a.jsonl").write_text("{}\n")
    paths["stage"] = paths["exam"]
    paths["memory"] = made / "none.db"
    paths["root"] = made / "benchmarks"
    paths["pope"] = paths["root"] / "pope"
    assert main(["eval", "nano", "--pictures", "1", "--write-pope", str(paths["pope"])]) == 0
    return paths


@pytest.mark.parametrize("place", ["below a file", "where nothing can be made", "on a read-only disk"])
@pytest.mark.parametrize(("verb", "option"), sorted(COMMANDS.keys() - {(v, "out") for v in LIKE_POPE}))
def test_it_is_found_out_before_the_work(
    verb: str,
    option: str,
    place: str,
    there: dict[str, Path],
    tiny_checkpoint: Path,
    tmp_path: Path,
    read_only_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def long_work(*_: Any, **__: Any) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(onnxruntime, "InferenceSession", long_work)
    monkeypatch.setattr(torch.nn.Module, "__call__", long_work)
    (tmp_path / "file").write_text("mine")
    places = {"below a file": tmp_path / "file", "on a read-only disk": read_only_directory}
    at = places.get(place, Path("/proc/nothing")) / "out"
    command = [word.format(at=at, tiny=tiny_checkpoint, **there) for word in COMMANDS[verb, option].split()]
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("mobilevlm: error: ") and str(at) in said[-1], said
    assert (tmp_path / "file").read_text() == "mine"
