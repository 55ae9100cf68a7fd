# SPDX-License-Identifier: Apache-2.0
"""The files of a bundle are destroyed while a node serves it: it answers as before, and says what it saw."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from mobilevlm_msgs.msg import Status

NAME = "robbed"


def test_a_node_whose_bundle_is_destroyed_answers_as_before_and_says_so(
    second_node, any_bundle: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(any_bundle, tmp_path / "bundle"))
    node = second_node(NAME, bundle=bundle, diagnostics_period=0.2)
    seen: list[DiagnosticStatus] = []
    subscription = node.graph.node.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda array: seen.extend(s for s in array.status if s.name == f"{NAME}: model"),
        10,
    )
    try:
        before = node.ask(max_tokens=8)
        assert before.status.ok, before.status
        for file in sorted(bundle.iterdir()):
            os.truncate(file, 0 if file.suffix == ".npy" else file.stat().st_size // 2)
        seen.clear()
        # A look that began earlier has compared some files before they were destroyed.
        all_changed = lambda told: "has changed since" in told and "bundle.json" in told  # noqa: E731
        warned = node.graph.until(
            lambda: next((s for s in seen if all_changed(s.message)), None), "a warning"
        )
        assert warned.level == DiagnosticStatus.WARN and "~/reload_bundle" in warned.message
        after = node.ask(max_tokens=8)
        assert (after.status.ok, after.answer, after.model_id) == (True, before.answer, before.model_id)
        refused = node.reload(bundle)
        assert refused.status.code == Status.BUNDLE_ERROR, refused.status
        assert node.ask(max_tokens=8).answer == before.answer
        # Put back, it is one bundle again, with files of another date.
        shutil.copytree(any_bundle, bundle, dirs_exist_ok=True)
        assert node.reload(bundle).status.code == Status.OK
        seen.clear()
        assert node.graph.until(lambda: seen, "a report")[0].level == DiagnosticStatus.OK
    finally:
        node.graph.node.destroy_subscription(subscription)
        node.close()
