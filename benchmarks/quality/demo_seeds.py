# SPDX-License-Identifier: Apache-2.0
"""Runs the demo on many scenes and counts true answers.

.venv/bin/python benchmarks/quality/demo_seeds.py 40
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tqdm import tqdm

LAST_LINE = re.compile(r"demo: (\d+) of (\d+) answers match the truth")


def main() -> int:
    """One demo after the other; prints what was wrong, and the total as a Markdown row."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    demo = Path(sys.executable).with_name("mobilevlm_demo")
    right = asked = whole = 0
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        for seed in tqdm(range(count), unit="demo", disable=None):
            begin = monotonic()
            command = [str(demo), "--seed", str(seed), "--output", f"{work}/demo.png"]
            run = subprocess.run(command, capture_output=True, text=True, timeout=120)
            seconds.append(monotonic() - begin)
            found = LAST_LINE.search(run.stdout)
            if found is None:
                print(run.stdout, run.stderr, sep="\n", file=sys.stderr)
                return 1
            right, asked = right + int(found[1]), asked + int(found[2])
            whole += found[1] == found[2]
            for line in run.stdout.splitlines():
                if line.startswith("✗"):
                    print(f"seed {seed}: {' '.join(line[1:].split())}")
    seconds.sort()
    print(
        "| scenes | answers | true | share | scenes all true | median s per demo |\n|---|---|---|---|---|---|"
    )
    print(f"| {count} | {asked} | {right} | {right / asked:.1%} | {whole} | {seconds[count // 2]:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
