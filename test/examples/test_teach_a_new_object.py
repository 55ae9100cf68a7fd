# SPDX-License-Identifier: Apache-2.0
"""The example's whole way at a small size: render, train, merge, build, examine, reload into a node."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.engine.manifest import Manifest
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import KINDS
from mobilevlm_ros.simulation.scene_sampler import sample_scene

ROOT = Path(__file__).parents[2]


def test_new_kinds_appear_only_where_they_are_asked_for() -> None:
    assert not any(t.kind == "shuttle" for seed in range(200) for t in sample_scene(seed).things)
    assert sample_scene(11) == sample_scene(11, KINDS)
    scene = next(s for seed in range(20) if (s := sample_scene(seed, ("shuttle",))).things)
    observation = observe(scene, 0.0, 320, 240)
    assert {seen.thing.kind for seen in observation.seen} == {"shuttle"}
    assert np.unique(observation.labels).size == len(observation.seen) + 1


@pytest.mark.timeout(900)
def test_from_pictures_to_a_running_node(nano: Path, tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    out = tmp_path / "shuttle"
    program = [sys.executable, "examples/teach_a_new_object/teach.py", "-o", str(out)]
    size = [
        "--pictures",
        "6",
        "--others",
        "6",
        "--steps",
        "10",
        "--threads",
        "1",
        "--exam",
        "4",
        "--known-exam",
        "10",
    ]
    result = subprocess.run(program + size, cwd=ROOT, capture_output=True, text=True, timeout=880)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    marks = json.loads((out / "marks.json").read_text())
    assert set(marks) == {"before", "after", "node"}
    assert marks["before"]["known"] >= 0.9
    assert all(0 <= share <= 1 for part in marks.values() for share in part.values())
    loaded = Manifest.from_json((out / "bundle" / "bundle.json").read_text(), "it").model_id
    assert f"/mobilevlm after {loaded} was loaded:" in result.stdout
    assert f"bundle: {out / 'bundle'}" in result.stdout
