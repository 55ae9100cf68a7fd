# SPDX-License-Identifier: Apache-2.0
"""What soak.py measures of the node's process, and how it is told: slopes, a plot, a page.

python benchmarks/reliability/soak_report.py PREFIX    # draws PREFIX.png of PREFIX.json
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mobilevlm_ros.version import __version__

TICKS = os.sysconf("SC_CLK_TCK")
FAULTS = ("unexplained", "wrong_header", "torn", "unexpected", "lost", "died")
"""What a soak must not have."""


@dataclass
class Sample:
    """The process at one moment. `seconds` since the start, `rss` and `private` MiB, `cpu` seconds so far."""

    seconds: float
    rss: float
    private: float
    threads: int
    descriptors: int
    cpu: float
    answered: int
    p50: float | None
    p95: float | None


def measure(pid: int, seconds: float, answered: int, latencies: list[float]) -> Sample:
    """The process now. `latencies`: of the answers since the sample before, seconds."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    middle = np.percentile(latencies, (50, 95)).tolist() if latencies else (None, None)
    return Sample(
        seconds=round(seconds, 1),
        rss=int(status["VmRSS"].split()[0]) / 1024,
        private=int(status["RssAnon"].split()[0]) / 1024,
        threads=int(status["Threads"]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        cpu=(int(times[11]) + int(times[12])) / TICKS,
        answered=answered,
        p50=middle[0],
        p95=middle[1],
    )


def slope(samples: list[Sample], of: str, begin: float = 0.5) -> float:
    """Growth per hour over the samples after the fraction `begin` of the time: Theil and Sen's estimate (the
    median of the slopes between all pairs), which a few odd samples do not move. NaN for fewer than three.
    """
    kept = [s for s in samples if s.seconds >= begin * samples[-1].seconds]
    if len(kept) < 3:
        return float("nan")
    x, y = np.array([s.seconds for s in kept]), np.array([getattr(s, of) for s in kept])
    first, second = np.triu_indices(len(kept), 1)
    apart = x[second] > x[first]
    first, second = first[apart], second[apart]
    if not len(first):
        return float("nan")
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])) * 3600)


@dataclass
class Summary:
    """A whole run."""

    command: str
    conditions: str
    minutes: float
    counts: Counter[str]
    samples: list[Sample]
    latencies: list[float]
    found: list[dict[str, Any]] = field(default_factory=list)
    camera_hz: dict[str, float] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        return sum(self.counts[kind] for kind in FAULTS)

    def figures(self) -> dict[str, Any]:
        """The numbers of the page, as JSON."""
        last, points = self.samples[-1], np.percentile(self.latencies or [np.nan], (50, 95, 99))
        return {
            "command": self.command,
            "conditions": self.conditions,
            "minutes": round(self.minutes, 1),
            "faults": {kind: self.counts[kind] for kind in FAULTS},
            "latency_seconds": dict(zip(("p50", "p95", "p99"), (round(float(p), 4) for p in points))),
            "slope_per_hour": {
                f"{of}, after {begin:.0%}": round(slope(self.samples, of, begin), 2)
                for of in ("rss", "private", "threads", "descriptors")
                for begin in (0.5, 0.75)
            },
            "node_cpu_share": round(last.cpu / max(last.seconds, 1.0), 3),
            "camera_hz": self.camera_hz,
            "counts": dict(sorted(self.counts.items())),
            "found": self.found,
            "samples": [vars(s) for s in self.samples],
        }

    def write(self, prefix: Path) -> None:
        """PREFIX.json and PREFIX.md, each replaced as a whole."""
        texts = {".json": json.dumps(self.figures(), indent=1) + "\n", ".md": self.page(f"{prefix.name}.png")}
        for suffix, text in texts.items():
            beside = prefix.with_suffix(f"{suffix}.part")
            beside.write_text(text)
            beside.replace(prefix.with_suffix(suffix))

    def page(self, picture: str) -> str:
        """The figures in Markdown."""
        told, last = self.figures(), self.samples[-1]
        slopes = told["slope_per_hour"]
        latency = told["latency_seconds"]
        counts = self.counts
        rows = [
            ("questions answered (any status)", f"{counts['answered']} of {counts['sent']} sent"),
            ("lost: no response at all", counts["lost"]),
            ("on their way when the soak was ended by a signal", counts["cut off"]),
            ("processes that ended before the end", counts["died"]),
            ("header of another frame or camera", counts["wrong_header"]),
            ("answers that fit no frame the header could mean", counts["unexplained"]),
            ("streams whose pieces do not begin the answer", counts["torn"]),
            ("status other than the request called for", counts["unexpected"]),
            ("answers true of their frame", f"{counts['right']}"),
            ("wrong, and the same model says so about the same picture here", counts["model_wrong"]),
            ("asked again in another process on the frame of the header", counts["asked again"]),
            ("captions, monitor evaluations", f"{counts['captions']}, {counts['monitor evaluations']}"),
            (
                "monitors on the right side of 0.5",
                f"{counts['monitor right']} ({counts['monitor wrong']} on the other)",
            ),
            (
                "latency, arrival to answer",
                f"p50 {latency['p50']:.3f} s, p95 {latency['p95']:.3f} s, p99 {latency['p99']:.3f} s",
            ),
            ("resident memory at the end", f"{last.rss:.0f} MiB ({last.private:.0f} private)"),
            ("growth of private memory, last half", f"{slopes['private, after 50%']:+.2f} MiB/h"),
            ("growth of private memory, last quarter", f"{slopes['private, after 75%']:+.2f} MiB/h"),
            ("threads, descriptors at the end", f"{last.threads}, {last.descriptors}"),
            (
                "growth of threads, descriptors, last half",
                f"{slopes['threads, after 50%']:+.1f}/h, {slopes['descriptors, after 50%']:+.1f}/h",
            ),
            ("processor of the node", f"{told['node_cpu_share']:.0%} of a core"),
            ("cameras, images per second", ", ".join(f"{hz:.1f}" for hz in self.camera_hz.values())),
        ]
        lines = [
            f"# Soak of {self.minutes:.0f} minutes",
            "",
            f"    {self.command}",
            "",
            self.conditions,
            "",
            "| what | |",
            "|---|---|",
            *(f"| {what} | {value} |" for what, value in rows),
            "",
            "Status codes: "
            + ", ".join(f"{k[7:]} {v}" for k, v in sorted(counts.items()) if k.startswith("status "))
            + ".",
            "",
            f"![memory, threads and descriptors, latency, load]({picture})",
            "",
        ]
        return "\n".join(lines)


def conditions() -> str:
    """The machine, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(
        git, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"mobilevlm_ros {__version__} ({commit or 'no git'}), Python {platform.python_version()}; {model}, "
        f"{os.cpu_count()} cores, {memory:.0f} GiB; niceness {os.nice(0)}; load average of the last 15 "
        f"minutes {os.getloadavg()[2]:.1f}."
    )


def plot(prefix: Path) -> None:
    """PREFIX.png of PREFIX.json: memory, threads and descriptors, latencies and load over time."""
    import matplotlib

    told = json.loads(prefix.with_suffix(".json").read_text())
    samples = [Sample(**sample) for sample in told["samples"]]

    matplotlib.use("Agg")
    from matplotlib import pyplot

    minutes = [s.seconds / 60 for s in samples]
    figure, axes = pyplot.subplots(4, 1, sharex=True, figsize=(9, 10), layout="constrained")
    axes[0].plot(minutes, [s.rss for s in samples], label="resident")
    axes[0].plot(minutes, [s.private for s in samples], label="private")
    axes[0].set_ylabel("MiB")
    axes[1].plot(minutes, [s.threads for s in samples], label="threads")
    axes[1].plot(minutes, [s.descriptors for s in samples], label="descriptors")
    for of in ("p50", "p95"):
        known = [(m, getattr(s, of)) for m, s in zip(minutes, samples) if getattr(s, of) is not None]
        axes[2].plot([m for m, _ in known], [value for _, value in known], label=of)
    axes[2].set_ylabel("s")
    pairs = [(a, b) for a, b in pairwise(samples) if b.seconds > a.seconds]
    ends = [b.seconds / 60 for _, b in pairs]
    for label, of in (("processor, cores", "cpu"), ("answers per second", "answered")):
        rates = [(getattr(b, of) - getattr(a, of)) / (b.seconds - a.seconds) for a, b in pairs]
        axes[3].plot(ends, rates, label=label)
    axes[3].set_xlabel("minutes")
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right")
    figure.suptitle(f"soak, {told['minutes']:.0f} minutes")
    figure.savefig(prefix.with_suffix(".png"), dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    plot(Path(sys.argv[1]))
