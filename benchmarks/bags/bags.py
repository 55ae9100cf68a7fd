# SPDX-License-Identifier: Apache-2.0
"""What recordings cost: reading them, asking about them beside the bare model, memory, and Ray workers.

    python benchmarks/bags/bags.py [--frames N] [--many N] [--ray] [--json results.json]

Everything runs on recordings that it makes in a temporary directory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from rosbags.highlevel import AnyReader

from mobilevlm_ros.bags.demo_recording import DemoOptions, record_demo
from mobilevlm_ros.bags.job.job import Maker, Model, Options, questions_job
from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.reading.picture import picture_of
from mobilevlm_ros.bags.records import Record
from mobilevlm_ros.bags.running.answering import Answerer
from mobilevlm_ros.bags.running.ray_run import Cluster, run_on_ray
from mobilevlm_ros.bags.running.run import run
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.assistant import CAPTION_PROMPT, Assistant
from mobilevlm_ros.inference.types import Frame, Request

REPEATS = 3
MODEL = Model(threads=1)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--frames", type=int, default=100, help="of the recordings that are captioned")
    parser.add_argument("--many", type=int, default=10_000, help="frames over which memory is watched")
    parser.add_argument("--ray", action="store_true", help="one and two workers, too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["reading"] = reading(folder, args.frames)
        print(json.dumps(results, indent=1), flush=True)
        runtime = MODEL.load()
        results["captions"] = captions(folder, args.frames, runtime)
        print(json.dumps(results["captions"], indent=1), flush=True)
        results["memory"] = memory(folder, args.many, runtime)
        print(json.dumps(results["memory"], indent=1), flush=True)
        if args.ray:
            results["ray"] = ray(folder, args.frames, runtime)
    results["machine"]["load_at_the_end"] = os.getloadavg()[0]
    print(json.dumps(results, indent=1))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Where this runs, and what else does."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def reading(folder: Path, count: int) -> dict[str, Any]:
    """Messages read and deserialised: ours in recorded order, rosbags in the order of time; then decoded."""
    found = {}
    for raw in (True, False):
        path = folder / f"read-{raw}.mcap"
        record_demo(path, DemoOptions(seconds=count / 10, rate=10, raw=raw))
        topic = "/front/image" if raw else "/front/image/compressed"
        times: dict[str, list[float]] = {"rosbags": [], "ours": [], "ours, decoded": []}
        for _ in range(REPEATS):
            start = process_time()
            with AnyReader([path]) as reader:
                wanted = [c for c in reader.connections if c.topic == topic]
                theirs = [
                    reader.deserialize(data, c.msgtype).header.stamp.sec  # type: ignore[attr-defined]
                    for c, _, data in reader.messages(wanted)
                ]
            times["rosbags"].append(process_time() - start)
            start = process_time()
            with Bag(path) as bag:
                ours = [picture_of(message).stamp_ns for message in bag.messages([topic])]
            times["ours"].append(process_time() - start)
            start = process_time()
            with Bag(path) as bag:
                for message in bag.messages([topic]):
                    picture_of(message).decode({})
            times["ours, decoded"].append(process_time() - start)
            assert len(theirs) == len(ours) == count
        name = "raw" if raw else "jpeg"
        found[name] = {what: round(1000 * min(seconds) / count, 3) for what, seconds in times.items()}
    return {"unit": "CPU ms for each 640x480 picture, best of 3", **found}


def captioning(runtime: Runtime, options: Options) -> Maker:
    return questions_job(
        "caption", [Request(CAPTION_PROMPT)], options, MODEL, runtime.bundle.manifest.model_id
    )


def captions(folder: Path, count: int, runtime: Runtime) -> dict[str, Any]:
    """Every frame captioned: from a recording, and by the bare model from decoded frames in memory."""
    path = folder / "captions.mcap"
    record_demo(path, DemoOptions(seconds=count / 10, rate=10))
    with Bag(path) as bag:
        frames = [Frame(picture_of(m).decode({})) for m in bag.messages(["/front/image/compressed"])]
    wall: dict[str, list[float]] = {"bare model": [], "caption-bag": []}
    cpu: dict[str, list[float]] = {"bare model": [], "caption-bag": []}
    for repeat in range(REPEATS):
        assistant = Assistant(runtime)
        start, used = perf_counter(), process_time()
        for frame in frames:
            assistant.ask(frame, Request(CAPTION_PROMPT))
        wall["bare model"].append(perf_counter() - start)
        cpu["bare model"].append(process_time() - used)
        start, used = perf_counter(), process_time()
        make = captioning(runtime, Options())
        run(path, folder / f"c{repeat}.mcap", make, lambda job: Answerer(job, runtime), quiet=True)
        wall["caption-bag"].append(perf_counter() - start)
        cpu["caption-bag"].append(process_time() - used)
    return {
        "frames": count,
        "frames_per_second": {
            name: round(count / statistics.median(times), 2) for name, times in wall.items()
        },
        "cpu_ms_per_frame": {name: round(1000 * min(times) / count, 2) for name, times in cpu.items()},
        "wall_seconds": {name: [round(t, 2) for t in times] for name, times in wall.items()},
    }


def resident() -> int:
    """Of this process, KiB, now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def memory(folder: Path, count: int, runtime: Runtime) -> dict[str, Any]:
    """Resident memory over a long recording of small pictures: all are read, each 20th is asked about."""
    path = folder / "many.mcap"
    options = DemoOptions(seconds=count / 20, rate=20, raw=True, width=160, height=120)
    record_demo(path, options)
    seen: list[int] = []

    def note(record: Record) -> None:
        if record.index % 1000 == 0:
            seen.append(resident())

    request = Request("Is there a person?", choices=("yes", "no"))
    chosen = Options(every=1.0)
    make = questions_job("answer", [request], chosen, MODEL, runtime.bundle.manifest.model_id)
    start = perf_counter()
    summary = run(path, None, make, lambda job: Answerer(job, runtime), quiet=True, on_record=note)
    return {
        "pictures": summary.tally.pictures,
        "asked": summary.frames,
        "seconds": round(perf_counter() - start, 1),
        "file_MB": round(path.stat().st_size / 1e6, 1),
        "resident_MiB_each_1000": [round(kib / 1024, 1) for kib in seen],
        "peak_MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def ray(folder: Path, count: int, runtime: Runtime) -> dict[str, Any]:
    """The same captions by one and by two workers of a Ray that is started here, starting included."""
    path = folder / "captions.mcap"
    found = {}
    for workers in (1, 2):
        start = perf_counter()
        output = folder / f"ray{workers}.mcap"
        (summary,) = run_on_ray(
            {path: output}, captioning(runtime, Options()), Cluster("local", workers), quiet=True
        )
        found[f"{workers} workers"] = {
            "frames": summary.frames,
            "seconds_with_start": round(perf_counter() - start, 1),
            "seconds": round(summary.seconds, 1),
            "frames_per_second": round(summary.rate, 2),
            "same_as_one_process": output.read_bytes() == (folder / "c0.mcap").read_bytes(),
        }
    return found


if __name__ == "__main__":
    main()
