# SPDX-License-Identifier: Apache-2.0
"""Feeds every entry point with damaged and malicious input, and counts what comes of it.

    python benchmarks/reliability/hostile.py --cases 100000 -o benchmarks/results/hostile
    python benchmarks/reliability/hostile.py --entry gguf --only 4711     # one case again, with its traceback

Each case has a number, from which its input follows. It must end in a result or in an error of ours
(mobilevlm_ros.errors) within --seconds. Anything else is a fault: an untyped error, a crash or a hang of the
process, or more memory than --megabytes. Cases run in processes of their own, so that a crash ends one of
them only. The exit code is 0 when there was no fault.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import random
import resource
import sys
import warnings
from collections import Counter
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from hostile_files import clean
from hostile_inputs import ENTRIES, Entry
from tqdm import tqdm

from mobilevlm_ros.errors import LONGEST_MESSAGE, MobileVLMError

CHUNK = 1000
"""Cases of one process."""

GRACE = 30.0
"""Seconds beside --seconds after which a case that does not end is taken for a hang."""


def feed(entry: Entry, case: int) -> object:
    """Run one case."""
    return entry.run(random.Random(f"{entry.name} {case}"))  # nosec B311


def chunk(entry: Entry, cases: range, seconds: float, at: Any, pipe: Any) -> None:
    """Run some cases; `at` tells which one is at hand, the pipe takes what came of all."""
    warnings.simplefilter("ignore")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # libraries print what they think of the input
    counts: Counter[str] = Counter()
    faults, slowest = [], (0.0, -1)
    with contextlib.suppress(Exception):
        feed(entry, -1)  # imports take their time once
    for case in cases:
        at.value = case
        begin = perf_counter()
        try:
            feed(entry, case)
            counts["taken"] += 1
        except MobileVLMError as error:
            counts["refused"] += 1
            if len(str(error)) > LONGEST_MESSAGE:
                faults.append((case, f"an error of {len(str(error))} characters"))
        except BaseException as error:
            faults.append((case, f"{type(error).__name__}: {str(error)[:200]}"))
        took = perf_counter() - begin
        slowest = max(slowest, (took, case))
        if took > seconds:
            faults.append((case, f"took {took:.1f} s"))
    clean()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send((counts, faults, slowest, peak))
    pipe.close()
    os._exit(0)  # threads of a server need not be joined


class Tally:
    """What came of an entry's cases."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[tuple[int, str]] = []
        self.slowest = (0.0, -1)
        self.peak = 0.0
        self.cases = 0

    def told(self) -> dict[str, Any]:
        return {
            "cases": self.cases,
            **self.counts,
            "faults": len(self.faults),
            "slowest_seconds": round(self.slowest[0], 3),
            "slowest_case": self.slowest[1],
            "peak_MiB": round(self.peak),
            "first_faults": self.faults[:20],
        }


def attack(entry: Entry, options: argparse.Namespace, bar: tqdm[Any]) -> Tally:
    """All cases of an entry."""
    tally, case = Tally(), options.first
    if not entry.threads:
        with contextlib.suppress(Exception):
            feed(entry, -1)  # so that each process need not import everything again
        clean()
    end = options.first + options.cases
    # A fork takes locks along that threads of this process hold; who starts threads begins anew.
    context = multiprocessing.get_context("spawn" if entry.threads else "fork")
    while case < end:
        cases = range(case, min(end, case + CHUNK))
        at = context.Value("q", case)
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=chunk, args=(entry, cases, options.seconds, at, theirs))
        worker.start()
        theirs.close()
        try:
            done, hung = _watched(ours, worker, at, options.seconds + GRACE), False
        except TimeoutError:
            done, hung = None, True
            worker.kill()
        worker.join()
        if done is None:
            tally.faults.append((at.value, "hung" if hung else f"ended the process with {worker.exitcode}"))
            bar.update(at.value + 1 - case)
            tally.cases += at.value + 1 - case
            case = at.value + 1
            continue
        counts, faults, slowest, peak = done
        tally.counts += counts
        tally.faults += faults
        tally.slowest = max(tally.slowest, slowest)
        tally.peak = max(tally.peak, peak)
        tally.cases += len(cases)
        bar.update(len(cases))
        case = cases.stop
    if tally.peak > options.megabytes:
        tally.faults.append((-1, f"a process of {tally.peak:.0f} MiB"))
    return tally


def _watched(pipe: Any, worker: Any, at: Any, patience: float) -> Any:
    """What the worker sends; None when it ended without. Raises TimeoutError when it stays at one case."""
    seen, since, looked = at.value, monotonic(), monotonic()
    while not pipe.poll(0.2):
        frozen = monotonic() - looked > 5.0  # the machine stood still, and we with it
        looked = monotonic()
        if at.value != seen or frozen:
            seen, since = at.value, looked
        if monotonic() - since > patience:
            raise TimeoutError
        if not (worker.is_alive() or pipe.poll(0.2)):
            return None
    try:
        return pipe.recv()
    except EOFError:
        return None


def page(told: dict[str, Any]) -> str:
    """The figures in Markdown."""
    heads = (
        "entry point",
        "fed with",
        "cases",
        "refused with a typed error",
        "taken",
        "faults",
        "slowest",
        "peak",
    )
    rows = [
        (
            *(name, found["what"], found["cases"], found.get("refused", 0), found.get("taken", 0)),
            *(found["faults"], f"{found['slowest_seconds']:.2f} s", f"{found['peak_MiB']} MiB"),
        )
        for name, found in told["entries"].items()
    ]
    return "\n".join(
        [
            "# Hostile input",
            "",
            f"    {told['command']}",
            "",
            f"{told['machine']}. {told['note']}".strip(),
            "",
            *(f"| {' | '.join(map(str, row))} |" for row in (heads, ("---",) * len(heads), *rows)),
            "",
        ]
    )


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = [entry.name for entry in ENTRIES]
    add("--cases", type=int, default=1000, help="of each entry point (default: %(default)s)")
    add("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    add("--entry", action="append", choices=names, help="only this one; may be given again")
    add("--only", type=int, metavar="CASE", help="run one case here and show its traceback")
    add("--seconds", type=float, default=10.0, help="that a case may take (default: %(default)s)")
    add("--megabytes", type=float, default=2048.0, help="that a process may hold (default: %(default)s)")
    add("--note", default="")
    add("-o", "--output", type=Path, metavar="PREFIX", help="write PREFIX.json and PREFIX.md")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    options = parse(args)
    entries = [entry for entry in ENTRIES if not options.entry or entry.name in options.entry]
    if options.only is not None:
        for entry in entries:
            print(entry.name, feed(entry, options.only))
        clean()
        return 0
    found: dict[str, Any] = {}
    command = " ".join(
        ["python benchmarks/reliability/hostile.py", *(sys.argv[1:] if args is None else args)]
    )
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    told = {"command": command, "machine": machine, "note": options.note, "entries": found}
    for entry in entries:
        with tqdm(total=options.cases, desc=entry.name, mininterval=1.0) as bar:
            found[entry.name] = {"what": entry.what, **attack(entry, options, bar).told()}
        for case, what in found[entry.name]["first_faults"]:
            print(f"{entry.name} {case}: {what}", flush=True)
        if options.output:
            options.output.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
            options.output.with_suffix(".md").write_text(page(told))
    print(page(told))
    return 1 if any(entry["faults"] for entry in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
