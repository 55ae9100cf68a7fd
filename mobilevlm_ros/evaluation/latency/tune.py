# SPDX-License-Identifier: Apache-2.0
"""Which number of threads answers soonest, and what busy-waiting would add to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mobilevlm_ros.engine.onnxruntime.backend import physical_cores
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.evaluation.latency.measure import LatencyReport, measure

TOKENS = 16
"""Of the measured answer: what most questions take."""

ENOUGH = 0.03
"""Fewer threads are preferred while they answer within this share of the fastest: the rest of the robot
needs cores as well."""


@dataclass(frozen=True)
class Setting:
    """One way to run the engine."""

    threads: int
    spin: bool = False

    def __str__(self) -> str:
        return f"{self.threads} threads{', busy-waiting' if self.spin else ''}"


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        best: the setting to use.
        seconds: from a new picture to the last of TOKENS tokens, the median of all rounds, by setting.
        reports: the last measurement of each.
    """

    best: Setting
    seconds: dict[Setting, float]
    reports: dict[Setting, LatencyReport]

    @property
    def spinning_gain(self) -> float | None:
        """Share of the time that busy-waiting saves with the best number of threads; None if not measured."""
        spinning = self.seconds.get(Setting(self.best.threads, True))
        return None if spinning is None else 1 - spinning / self.seconds[self.best]


def candidates() -> list[int]:
    """Numbers of threads worth trying here: 1, doubled, all physical cores, one fewer, all processors."""
    cores = physical_cores()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    doubled = [1 << i for i in range(cores.bit_length()) if 1 << i <= cores]
    return sorted({*doubled, cores, max(1, cores - 1), allowed})


def tune(
    bundle: Path | None,
    threads: Sequence[int],
    *,
    spin: bool = True,
    rounds: int = 3,
    progress: Callable[[int, int, Setting], object] = lambda done, total, setting: None,
) -> Tuned:
    """Measures every setting in turn, `rounds` times over, so that a machine that changes its speed is fair.

    With `spin` the best number of threads is measured once more busy-waiting. `progress` gets the
    measurements that are done, all that there will be, and the one that begins. Raises what load_runtime and
    measure raise.
    """
    settings = [Setting(number) for number in threads]
    total = rounds * (len(settings) + (2 if spin else 0))
    times: dict[Setting, list[float]] = {setting: [] for setting in settings}
    reports: dict[Setting, LatencyReport] = {}
    done = 0

    def run(setting: Setting) -> None:
        nonlocal done
        progress(done, total, setting)
        reports[setting] = measure(
            lambda: load_runtime(bundle, "onnxruntime-cpu", setting.threads, setting.spin),
            tokens=TOKENS,
            repeats=1,
            threads=setting.threads,
        )
        times.setdefault(setting, []).append(reports[setting].total)
        done += 1

    for _ in range(rounds):
        for setting in settings:
            run(setting)
    best = choose({setting: median(found) for setting, found in times.items()})
    if spin:
        for _ in range(rounds):
            run(best)
            run(Setting(best.threads, True))
    return Tuned(best, {setting: median(found) for setting, found in times.items()}, reports)


def choose(seconds: dict[Setting, float]) -> Setting:
    """The fewest threads that answer within ENOUGH of the fastest."""
    limit = min(seconds.values()) * (1 + ENOUGH)
    return min((s for s, t in seconds.items() if t <= limit), key=lambda s: s.threads)
