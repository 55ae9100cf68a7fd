# SPDX-License-Identifier: Apache-2.0
"""When was somebody in the way? Spans of time out of the records of a recording.

mobilevlm monitor-bag drive.mcap --monitors config/monitors.yaml -o drive.monitors.mcap
python examples/events_of_a_recording.py drive.monitors.jsonl person
"""

import sys
from datetime import datetime

from mobilevlm_ros.bags.records import read_records


def main(path: str, monitor: str) -> None:
    """Prints a line for each time the monitor was raised, by camera."""
    begun: dict[str, int] = {}
    for record in read_records(path):
        if record.monitor != monitor or not record.changed:
            continue
        if record.state == "raised":
            begun[record.camera] = record.time_ns
        elif record.camera in begun:
            tell(record.camera, begun.pop(record.camera), record.time_ns)
    for camera, start in begun.items():
        tell(camera, start, None)


def tell(camera: str, start: int, end: int | None) -> None:
    since = datetime.fromtimestamp(start / 1e9).isoformat(" ", "seconds")
    length = "until the end" if end is None else f"for {(end - start) / 1e9:.1f} s"
    print(f"{since}  {camera or 'camera'}  {length}")


if __name__ == "__main__":
    main(*sys.argv[1:])
