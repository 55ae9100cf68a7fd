# SPDX-License-Identifier: Apache-2.0
"""The real lmms-eval on a local task, offline, where it is installed (`make test` does not)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from mobilevlm_ros.evaluation.nano.exam import exam

ROOT = Path(__file__).parents[3]

TASK = """
task: nano_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
process_results: !function utils.process_results
generation_kwargs: {{max_new_tokens: 16, temperature: 0, do_sample: false}}
metric_list: [{{metric: right, aggregation: mean, higher_is_better: true}}]
"""
UTILS = """
from PIL import Image

def doc_to_visual(doc):
    return [Image.open(doc["image"])]

def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def process_results(doc, results):
    return {"right": float(results[0].strip().lower().startswith(doc["answer"]))}
"""


@pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is not installed")
def test_lmms_eval_finds_the_model_and_scores_it(nano: Path, tmp_path: Path) -> None:
    rows = []
    for number, (image, exchange, _) in enumerate(exam(30)):
        if exchange.truth in ("yes", "no"):
            Image.fromarray(image).save(tmp_path / f"{number}.png")
            picture = str(tmp_path / f"{number}.png")
            rows.append({"image": picture, "question": exchange.question, "answer": exchange.truth})
    (tmp_path / "data.json").write_text(json.dumps(rows))
    task = tmp_path / "task"
    task.mkdir()
    (task / "nano_local.yaml").write_text(TASK.format(data=tmp_path / "data.json"))
    (task / "utils.py").write_text(UTILS)
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "mobilevlm", "--model_args",
        f"bundle={nano},threads=1", "--tasks", "nano_local", "--include_path", str(task), "--batch_size", "1",
        "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": path}
    done = subprocess.run(
        command, env={**os.environ, **offline}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = (tmp_path / "out").rglob("*_results.json")
    scores = json.loads(result.read_text())["results"]["nano_local"]
    assert scores["right,none"] >= 0.9
