# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import mobilevlm_ros
from mobilevlm_ros.checkpoints.checkpoint import expected_shapes
from mobilevlm_ros.checkpoints.random_weights import CONFIGS
from mobilevlm_ros.cli import VERBS, main
from mobilevlm_ros.commands.verbs import EXAMPLES, parser_of

ROOT = Path(__file__).parents[1]
TOKENIZER = Path(__file__).parent / "data" / "parity" / "ckpt" / "tiny-ldpnet" / "tokenizer.model"


@pytest.fixture(autouse=True)
def restore_sigterm():
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "tiny"
    arguments = [
        "make-checkpoint",
        "--like",
        "tiny",
        "--random",
        str(path),
        "--tokenizer",
        str(TOKENIZER),
        "--quiet",
    ]
    assert main(arguments) == 0
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    path = checkpoint.with_name("bundle")
    assert main(["build", str(checkpoint), "-o", str(path), "--quiet"]) == 0
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    return path


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a command that fails."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mobilevlm: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_help_lists_the_verbs_without_loading_them():
    script = """
import sys
from mobilevlm_ros.cli import main
try:
    main(["--help"])
finally:
    heavy = {"torch", "onnxruntime", "cv2", "numpy"} & set(sys.modules)
    assert not heavy, heavy
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert result.returncode == 0, result.stderr
    for verb in VERBS:
        assert verb in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    assert f"mobilevlm {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_examples_that_parse(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["help", verb])
    assert "examples:\n  " in capsys.readouterr().out
    for example in EXAMPLES[verb]:
        words = shlex.split(example.rpartition("| ")[2].partition(" > ")[0], comments=True)
        assert words[:2] == ["mobilevlm", verb]
        parser = parser_of(verb)
        (parser.parse_intermixed_args if verb == "ask" else parser.parse_args)(words[2:])


def test_a_verb_that_is_nearly_right(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["exprt-gguf"])
    assert "did you mean export-gguf?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["help", "srve"], ["srve", "--help"], ["srve"]])
def test_help_of_a_verb_that_is_not_there_says_so(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "there is no verb 'srve' (did you mean serve?)" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "lora"], ["eval", "pope"], ["eval", "mme"]])
def test_help_of_a_part_of_a_verb_shows_examples(words, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["help", *words])
    assert f"examples:\n  mobilevlm {words[0]} " in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mobilevlm {mobilevlm_ros.__version__}\n"


WRONG = (
    [],
    ["dance"],
    ["build"],
    ["ask"],
    ["ask", "only-an-image.png"],
    ["ask", "only a question?"],
    ["ask", "a.png", "What?", "--max-tokens", "x"],
    ["info", "--what"],
)


@pytest.mark.parametrize("arguments", WRONG, ids=str)
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: mobilevlm") and error.startswith("mobilevlm: error: ")
    assert "`mobilevlm help" in error


def test_make_checkpoint_then_build_report_as_json(tmp_path, capsys, checkpoint):
    like = ["--like", str(checkpoint), "--random", "--dtype", "float32"]
    assert main(["make-checkpoint", *like, str(tmp_path / "twin"), "--quiet", "--json"]) == 0
    assert (tmp_path / "twin" / "tokenizer.model").read_bytes() == TOKENIZER.read_bytes()
    made = json.loads(capsys.readouterr().out)
    assert made["checkpoint"] == str(tmp_path / "twin")
    assert made["parameters"] == sum(map(math.prod, expected_shapes(CONFIGS["tiny"]).values()))
    options = ["--name", "twin", "--matrix-bits", "lm_head=8", "--block-size", "16", "--quiet", "--json"]
    assert main(["build", str(tmp_path / "twin"), "-o", str(tmp_path / "b"), *options]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["name"] == "twin"
    assert built["precision"]["overrides"] == {"lm_head": 8}
    assert built["precision"]["block_size"] == 16
    assert built["bytes"] == sum(path.stat().st_size for path in (tmp_path / "b").glob("[!b]*"))


def test_build_sums_up(tmp_path, capsys, checkpoint):
    assert main(["build", str(checkpoint), "-o", str(tmp_path / "b")]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path / 'b'}: tiny, 0.3 MB, built in ")
    assert captured.err == ""  # no terminal, no progress bar


def test_a_build_that_fails_says_so_in_one_line(tmp_path, capsys, checkpoint, bundle):
    assert "config.json does not exist" in error_of(capsys, "build", tmp_path / "no", "-o", tmp_path / "b")
    assert "--force" in error_of(capsys, "build", checkpoint, "-o", bundle)


def test_a_killed_build_leaves_nothing(tmp_path, checkpoint):
    # The process signals itself from inside the build, so the moment does not depend on speed.
    script = f"""
import signal
from mobilevlm_ros import cli
from mobilevlm_ros.export import stages
def kill(*a): signal.raise_signal(signal.SIGTERM)
stages.export_decoder = kill
raise SystemExit(cli.main(["build", {str(checkpoint)!r}, "-o", {str(tmp_path / "b")!r}, "--quiet"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert (result.returncode, result.stderr) == (130, "mobilevlm: error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_ask_prints_the_answer_and_what_it_cost(bundle, picture, capsys):
    assert main(["ask", str(picture), "What is it?", "--bundle", str(bundle), "--max-tokens", "4"]) == 0
    answer, confidence = capsys.readouterr().out.splitlines()
    assert not answer.startswith(" ")
    assert confidence.startswith("  confidence 0.") and "prefill" in confidence
    assert confidence.endswith(", tiny on onnxruntime-cpu")
    question = ["ask", str(picture), "What is it?", "--bundle", str(bundle), "--max-tokens", "4"]
    for way in ("--quiet", "--no-stream"):
        assert main([*question, way]) == 0
        assert capsys.readouterr().out.splitlines()[0] == answer


def test_ask_as_json(bundle, picture, capsys):
    assert (
        main(["ask", str(picture), "What is it?", "--bundle", str(bundle), "--max-tokens", "4", "--json"])
        == 0
    )
    answer = json.loads(capsys.readouterr().out)
    assert (answer["model"], answer["backend"]) == ("tiny", "onnxruntime-cpu")
    assert 0 < answer["confidence"] <= 1
    assert answer["generated_tokens"] <= 4
    assert set(answer["latency"]) == {"queue", "encode", "prefill", "decode", "total"}


def test_ask_for_a_choice(bundle, picture, capsys):
    question = ["ask", str(picture), "Is it red?", "--bundle", str(bundle), "--choices", "yes", "no"]
    assert main(question) == 0
    answer, confidence, *rows = capsys.readouterr().out.splitlines()
    odds = {name: float(p) for name, p in (row.strip().split(": ") for row in rows)}
    assert list(odds) == ["yes", "no"] and sum(odds.values()) == pytest.approx(1, abs=0.002)
    assert answer == max(odds, key=odds.__getitem__)
    assert confidence.startswith(f"  confidence {odds[answer]:.3f}, ")
    assert main([*question, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] in ("yes", "no")


def test_ask_from_the_checkpoint_itself(checkpoint, picture, capsys):
    arguments = ["--bundle", str(checkpoint), "--backend", "torch", "--max-tokens", "2", "--json"]
    assert main(["ask", str(picture), "What is it?", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["backend"] == "torch"


def test_ask_refuses_what_it_cannot_use(bundle, picture, capsys, tmp_path, checkpoint):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "notes.txt").write_text("no picture")
    for name in ("empty.jpg", "notes.txt"):
        assert "is not a picture" in error_of(capsys, "ask", tmp_path / name, "What?", "--bundle", bundle)
    assert "No such file" in error_of(capsys, "ask", tmp_path / "no.png", "What?", "--bundle", bundle)
    assert "run `mobilevlm build" in error_of(capsys, "ask", picture, "What?", "--bundle", checkpoint)
    assert "choose one of auto" in error_of(
        capsys, "ask", picture, "What?", "--bundle", bundle, "--backend", "x"
    )
    assert error_of(capsys, "ask", picture, "  ", "--bundle", bundle)
    assert error_of(capsys, "ask", picture, "x" * 10_000, "--bundle", bundle)
    assert error_of(capsys, "ask", picture, "What?", "--bundle", bundle, "--max-tokens", "0")


def test_an_examination_without_questions_is_refused(capsys):
    for count in (0, -1):
        assert f"--count is {count}" in error_of(capsys, "eval", "nano", "--count", count)


def test_a_missing_build_package_is_named(checkpoint, tmp_path):
    script = f"""
import sys
sys.modules["onnx"] = None  # as if it were not installed
from mobilevlm_ros.cli import main
raise SystemExit(main(["build", {str(checkpoint)!r}, "-o", {str(tmp_path / "b")!r}]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert result.returncode == 1
    assert "`build` needs onnx" in result.stderr
    assert "mobilevlm_ros[build]" in result.stderr
