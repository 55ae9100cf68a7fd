# SPDX-License-Identifier: Apache-2.0
"""A run: killed and gone on with, on one process and two; stopped with its reason; refused before it
begins."""

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mobilevlm_ros.checkpoints.checkpoint import load
from mobilevlm_ros.cli import main
from mobilevlm_ros.training.run.metrics import read_metrics
from mobilevlm_ros.training.run.state import list_checkpoints

# Ends itself with SIGKILL after five steps.
KILLED = """
import os, signal, sys
from mobilevlm_ros.training import trainer
from mobilevlm_ros.cli import main
real = trainer.Trainer.step
trainer.Trainer.step = lambda self, n, b: os.kill(os.getpid(), signal.SIGKILL) if n == 5 else real(self, n, b)
main(sys.argv[1:])
"""


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run)]


def adapters(run: Path) -> dict[str, torch.Tensor]:
    files = ("adapter_model.bin", "non_lora_trainables.bin")
    return {k: v for name in files for k, v in torch.load(run / name, weights_only=True).items()}


@pytest.fixture(scope="module")
def unbroken(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    options = ["--set", "lora.r=4", "--set", "run.keep=2", "--set", "run.sample_every=8"]
    assert main(["train", "lora", *tiny_run, *options, "-o", str(run)]) == 0
    return run


def test_run_folder_says_everything(unbroken: Path) -> None:
    assert [path.name for path in list_checkpoints(unbroken)] == ["step-00000006", "step-00000008"]
    assert json.loads((unbroken / "run.json").read_text())["torch"] == torch.__version__
    assert "r: 4" in (unbroken / "recipe.yaml").read_text()
    assert len(losses(unbroken)) == 8
    sample = json.loads((unbroken / "samples.jsonl").read_text())
    assert sample["step"] == 8 and sample["taught"] == "The rain falls on the quiet street."
    assert (unbroken / "loss.png").stat().st_size > 1000


def goes_on_bit_equal(run: Path, unbroken: Path) -> None:
    assert list_checkpoints(run)[-1].name == "step-00000004"
    assert main(["train", "lora", "--resume", "--threads", "1", "--quiet", "-o", str(run)]) == 0
    assert losses(run) == losses(unbroken)
    reference = adapters(unbroken)
    assert all(torch.equal(value, reference[name]) for name, value in adapters(run).items())


def test_killed_run_goes_on_bit_equal(unbroken: Path, tiny_run: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", "lora", *tiny_run, "--set", "lora.r=4", "--set", "data.workers=1", "-o", str(run)]
    assert subprocess.run([sys.executable, "-c", KILLED, *words], timeout=200).returncode == -9
    goes_on_bit_equal(run, unbroken)


def test_run_killed_while_it_writes_a_checkpoint(
    unbroken: Path, tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = tmp_path / "run", os.fsync

    def killed(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if "step-00000006" in path and path.endswith("done.json"):
            raise SystemExit(9)
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", killed)
        with pytest.raises(SystemExit):
            main(["train", "lora", *tiny_run, "--set", "lora.r=4", "-o", str(run)])
    goes_on_bit_equal(run, unbroken)


def torchrun(*words: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "mobilevlm_ros.cli", "train", *words], timeout=250, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_equal_one_and_read_each_others_checkpoints(
    tiny_run: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    alone = ["batch.accumulation=2", "schedule.steps=4", "run.save_every=1", "run.keep=9"]
    words = [word for setting in alone for word in ("--set", setting)]
    assert main(["train", "instruct", *tiny_run, *words, "-o", str(run)]) == 0
    before, weights = losses(run), load(run / "checkpoint").state_dict()

    def forget(steps: int) -> None:
        """As if killed after so many steps."""
        shutil.rmtree(run / "checkpoint")
        for path in list_checkpoints(run)[steps:]:
            shutil.rmtree(path)

    def same() -> None:
        assert losses(run) == pytest.approx(before, rel=1e-5)
        for name, value in load(run / "checkpoint").state_dict().items():
            assert torch.allclose(value, weights[name], atol=1e-6), name

    resume = ["instruct", "--resume", "--threads", "1", "--quiet", "-o", str(run)]
    forget(1)
    torchrun(*resume)  # steps 2 to 4 by two processes, from the checkpoint of one
    same()
    forget(3)
    assert main(["train", *resume]) == 0  # the last step by one process, from the checkpoint of two
    same()


def test_a_killed_process_ends_the_others_which_say_how_to_go_on(tiny_run: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    many = ["batch.accumulation=1", "schedule.steps=400", "schedule.epochs=100", "run.save_every=2"]
    words = ["train", "instruct", *tiny_run, *(w for s in many for w in ("--set", s)), "-o", str(run)]
    port = str(free_port())
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "mobilevlm_ros.cli", *words],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        deadline = time.monotonic() + 200
        while len(list_checkpoints(run)) < 2 and ranks[0].poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        ranks[1].kill()
        error = ranks[0].communicate(timeout=120)[1].splitlines()[-1]
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    assert ranks[0].returncode == 1, error
    assert "another process of the run ended" in error and "--resume" in error
    last = list_checkpoints(run)[-1]
    assert last.name in error, "the checkpoint that it names is the last whole one"


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


def test_loss_that_is_not_finite_stops_with_the_way_back(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert (
        main(["train", "instruct", *tiny_run, "--set", "optimizer.learning_rate=1e30", "-o", str(run)]) == 1
    )
    error = capsys.readouterr().err.splitlines()[-1]
    assert "step 2: the loss is" in error and "samples of this process: i" in error
    assert str(list_checkpoints(run)[-1]) in error and "--resume" in error
    assert len(losses(run)) == 2


def bad(records: object, tmp_path: Path) -> str:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(records))
    return str(path)


TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cup."}]
LONG = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "cup " * 3000}]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "holds no samples"),
        (
            [{"id": "q7", "image": "nowhere.png", "conversations": TALK}],
            r"q7: names the picture .*nowhere.png",
        ),
        (
            [{"id": "q7", "image": "s1.png", "conversations": LONG}],
            r"q7: takes \d+ positions of 2048.*truncate",
        ),
        ([{"id": "q7", "image": "s1.png", "conversations": TALK * 2 + TALK[:1] * 2}], "q7: has two turns"),
        ([{"id": "q7", "conversations": [{"from": "robot", "value": "x"}]}], "q7: has a turn from 'robot'"),
    ],
    ids=["empty", "no picture", "too long", "turns", "role"],
)
def test_bad_data_is_refused_before_the_first_step(
    records: object, message: str, tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "instruct", *tiny_run, "--data", bad(records, tmp_path), "-o", str(run)]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not run.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "optimizer.learning_rat=1"], "did you mean optimizer.learning_rate?"),
        (["--set", "batch.size=0"], "batch.size is 0; it must be at least 1"),
        (["--set", "batch.size=many"], "batch.size is 'many'; expected a whole number"),
        (["--set", "run.precision=fp8"], "known: bf16, fp32"),
        (["--set", "train=lora"], "the stage instruct trains projector or all"),
        (["--model", "missing_directory"], "missing_directory"),
        (["--set", "model.projector=none.bin"], "none.bin does not exist"),
        (["--recipe", "none.yaml"], "recipe none.yaml does not exist"),
    ],
)
def test_bad_settings_are_refused(
    words: list[str], message: str, tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "instruct", *tiny_run, *words, "-o", str(run)]) == 1
    assert message in capsys.readouterr().err
    assert not run.exists()


def test_what_exists_is_not_overwritten(
    unbroken: Path, tiny_run: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (unbroken / "recipe.yaml").read_bytes()
    assert main(["train", "instruct", *tiny_run, "-o", str(unbroken)]) == 1
    assert "exists; name another run folder" in capsys.readouterr().err
    assert (unbroken / "recipe.yaml").read_bytes() == before


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """From now on no file may have more bytes than this: the kernel refuses, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [600, 2_500, 40_000])
def test_a_full_disk_ends_a_run_with_a_sentence_and_a_run_that_can_go_on(
    size: int,
    unbroken: Path,
    tmp_path: Path,
    full_disk: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    shutil.rmtree(list_checkpoints(run)[-1])
    resume = ["train", "lora", "--resume", "--threads", "1", "--quiet", "-o", str(run)]
    full_disk(size)
    code = main(resume)
    full_disk(resource.RLIM_INFINITY)
    assert code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(run) in error and "step-00000006; once the cause is mended, --resume" in error
    assert main(resume) == 0
    assert losses(run) == losses(unbroken)
    assert set(adapters(run)) == set(adapters(unbroken))


@pytest.mark.parametrize("name", ["metrics.jsonl", "loss.png", "adapter_model.bin", "tokenizer.model"])
def test_what_is_in_the_way_of_a_result_is_named_and_stays(
    name: str, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    (run / name).unlink()
    (run / name / "mine").mkdir(parents=True)
    assert main(["train", "lora", "--resume", "--threads", "1", "--quiet", "-o", str(run)]) == 1
    assert f"{run / name} is a directory" in capsys.readouterr().err
    assert (run / name / "mine").is_dir()


def test_skipped_samples_are_counted_and_named(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"id": f"q{n}", "image": "s1.png", "conversations": TALK} for n in range(3)]
    records[1]["image"] = "nowhere.png"
    options = ["--data", bad(records, tmp_path), "--set", "data.errors=skip", "--dry-run"]
    assert main(["train", "instruct", *tiny_run, *options]) == 0
    said = capsys.readouterr().err
    assert "1 samples left out: q1: names the picture" in said and "2 samples, 2 steps" in said
