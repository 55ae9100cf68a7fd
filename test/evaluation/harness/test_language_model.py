# SPDX-License-Identifier: Apache-2.0
"""lm-evaluation-harness on a task of our own, offline; where it is not installed, these are skipped."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="pip install 'mobilevlm_ros[eval-language]'")

from mobilevlm_ros.cli import main
from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.evaluation.harness.language_model import LanguageModel

TASK = """\
task: my_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""


@pytest.fixture(scope="module")
def runtime(nano: Path) -> Runtime:
    return load_runtime(nano, threads=1)


def requests(*arguments: Any) -> list[Any]:
    return [SimpleNamespace(args=a) for a in arguments]


def test_likelihoods_are_those_of_the_whole_text(runtime: Runtime) -> None:
    """A shared context, read once, gives what reading each text whole gives."""
    model = LanguageModel(runtime)
    pairs = [
        ("The ball is", " red"),
        ("The ball is", " blue and near"),
        ("A car", " stops"),
        ("", "The road"),
    ]
    found = model.loglikelihood(requests(*pairs), disable_tqdm=True)
    for (context, continuation), (score, greedy) in zip(pairs, found):
        ids = model.tok_encode(context + continuation)
        start = len(model.tok_encode(context)) if context else 1
        cache = runtime.language.new_cache(1, len(ids))
        logits = runtime.language.forward(runtime.language.embed(np.array(ids))[None], cache, len(ids))[0]
        logs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        logs -= logits.max(-1, keepdims=True)
        wanted = sum(float(logs[i - 1, ids[i]]) for i in range(start, len(ids)))
        assert score == pytest.approx(wanted, abs=0.05)
        assert greedy == all(int(logits[i - 1].argmax()) == ids[i] for i in range(start, len(ids)))
    (whole,) = model.loglikelihood_rolling(requests(("The road",)))
    assert whole == pytest.approx(found[-1][0], abs=1e-6)


def test_generation_ends_where_it_is_told(runtime: Runtime) -> None:
    model = LanguageModel(runtime)
    (free,) = model.generate_until(
        requests(("USER: Hello ASSISTANT:", {"max_gen_toks": 12})), disable_tqdm=True
    )
    assert free
    stop = free[len(free) // 2]
    options = {"until": [stop], "max_gen_toks": 12}
    (cut,) = model.generate_until(requests(("USER: Hello ASSISTANT:", options)), disable_tqdm=True)
    assert cut == free[: free.index(stop)].strip()


def test_a_local_task_through_the_command(
    nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": f"{n} and one is", "choices": ["near", "red"], "answer": n % 2} for n in range(6)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "my_choice.yaml").write_text(TASK.format(file=data))
    common = [
        "eval",
        "language",
        "--bundle",
        str(nano),
        "--threads",
        "1",
        "--include-path",
        str(tmp_path / "tasks"),
    ]
    assert main([*common, "--tasks", "my_choice", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["n-samples"]["my_choice"]["effective"] == 6
    model = LanguageModel(load_runtime(nano, threads=1))
    right = []
    for row in rows:
        pairs = requests(*[(row["question"], f" {choice}") for choice in row["choices"]])
        scores = [score for score, _ in model.loglikelihood(pairs, disable_tqdm=True)]
        right.append(int(np.argmax(scores)) == row["answer"])
    assert told["results"]["my_choice"]["acc,none"] == pytest.approx(np.mean(right))
    assert main([*common, "--tasks", "no_such_task"]) == 1
    assert "there is no task 'no_such_task'" in capsys.readouterr().err
