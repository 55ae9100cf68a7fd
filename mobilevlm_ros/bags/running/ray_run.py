# SPDX-License-Identifier: Apache-2.0
"""Runs jobs on the machines of a Ray cluster."""

from __future__ import annotations

from pathlib import Path

from mobilevlm_ros.bags.job.job import Maker
from mobilevlm_ros.bags.running.summary import Summary
from mobilevlm_ros.errors import OptionError


def run_on_ray(
    targets: dict[Path, Path],
    make: Maker,
    address: str,
    workers: int,
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Summary]:
    """Not there yet."""
    raise OptionError("--ray is not available in this release: leave it out")
