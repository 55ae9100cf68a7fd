# SPDX-License-Identifier: Apache-2.0
"""The ablations: their LDP is the package's, their features are the tower's, what ran is not run again."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilevlm_ros.checkpoints.checkpoint import load
from mobilevlm_ros.model.projector import LDPNet
from mobilevlm_ros.processing.image import normalize, prepare

ROOT = Path(__file__).parents[3]
NANO = ROOT / "models" / "nano"
TINY = ["--steps", "2", "--scenes", "4", "--scored", "3", "--rows", "2", "--language-steps", "2"]


@pytest.fixture(scope="module")
def ablations() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "benchmarks" / "quality"))
    import ablations

    yield ablations
    sys.path.pop(0)


@torch.no_grad()
def test_the_row_called_ldp_is_ldp(ablations: Any) -> None:
    torch.manual_seed(0)
    from ablation_cells import Projector, Variant

    ours, theirs = Projector(24, 32, 2, (1, 2)), LDPNet(24, 32)
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.copy_(its)
    x = torch.randn(2, 36, 24)
    torch.testing.assert_close(ours(x), theirs(x))
    for rows in ablations.TABLES.values():
        for variant in rows.values():
            made = Projector(24, 32, variant.pointwise, variant.strides)
            patches = (variant.side // 12) ** 2
            assert made(torch.randn(1, patches, 24)).shape == (1, variant.tokens, 32)
    assert Variant().tokens == 36


def test_cells_run_once_and_the_table_says_which(
    ablations: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, words = tmp_path / "out.json", ["--work", str(tmp_path / "work"), *TINY]
    assert ablations.main([*words, "-o", str(output), "--only", "fewer", "--minutes", "1e-9"]) == 0
    assert json.loads(output.read_text())["cells"]["run"] == 0
    ablations.SEEDS, seeds = (1,), ablations.SEEDS
    try:
        assert ablations.main([*words, "-o", str(output), "--only", "fewer"]) == 0
        first = capsys.readouterr().out
        assert ablations.main([*words, "-o", str(output), "--only", "fewer"]) == 0
        assert "seed 1:" in first and "seed 1:" not in capsys.readouterr().out
        rows = json.loads(output.read_text())["tables"]["fewer tokens (Table 11)"]
        assert {row["tokens"] for row in rows.values()} == {36}
        assert all(row["seeds"] == 1 and 0 <= row["accuracy"] <= 1 for row in rows.values())
        table = output.with_suffix(".md").read_text()
        assert "| LDP | 36 |" in table and "| random weights, v1 | 36 | | not run | | 0 | |" in table

        from ablation_cells import Bench, Budget, prepare_language

        budget = Budget(steps=2, rows=2, scenes=4, scored=3, language_steps=2)
        bench = Bench(NANO, tmp_path / "work", budget)
        pixels = torch.from_numpy(normalize(prepare(bench.seen[0].image, 144)[None]))
        with torch.no_grad():
            expected = load(NANO).float().encode_features(pixels)
        torch.testing.assert_close(bench.features[144, 4][:1].float(), expected, atol=2e-2, rtol=2e-2)
        assert bench.features[72, 4].shape[1] == 36
        text, chat = (prepare_language(bench, kind, 1) for kind in ("text", "chat"))
        assert any(not torch.equal(text[name], chat[name]) for name in text)
    finally:
        ablations.SEEDS = seeds
