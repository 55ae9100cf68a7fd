# SPDX-License-Identifier: Apache-2.0
"""What is asked about a recording, and the model that answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.selection.cameras import find_cameras
from mobilevlm_ros.bags.selection.frames import Selection
from mobilevlm_ros.bags.selection.time_range import time_range
from mobilevlm_ros.engine.runtime import AUTO, Runtime, load_runtime
from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.monitoring.monitors import Monitor, resolve
from mobilevlm_ros.inference.types import Request
from mobilevlm_ros.inference.validate import check_request
from mobilevlm_ros.ros.images.encodings import parse_encodings

_SAMPLE = 1 << 20
"""Bytes at both ends of a file that tell it from another one of the same size."""


@dataclass(frozen=True)
class Model:
    """What answers.

    Attributes:
        bundle: directory; None: nano. On a cluster each machine must find it there.
        backend, threads: as of `MobileVLM`.
    """

    bundle: str | None = None
    backend: str = AUTO
    threads: int = 0

    def load(self) -> Runtime:
        """The model, loaded. Raises BundleError, EngineError."""
        return load_runtime(self.bundle, self.backend, self.threads)


@dataclass(frozen=True)
class Options:
    """What a user may say about a job.

    Attributes:
        cameras: see `find_cameras`.
        every: seconds between frames of a camera, 0: every frame; None: the monitors' rates, or every frame.
        novelty: see `Selection`.
        start, end: see `time_range`.
        encodings: as the node's parameter of that name.
    """

    cameras: tuple[str, ...] = ()
    every: float | None = None
    novelty: float = 0.0
    start: str | None = None
    end: str | None = None
    encodings: tuple[str, ...] = ()

    def check(self) -> Options:
        """Itself. Raises OptionError for a number out of range, ConfigurationError for encodings."""
        if self.every is not None and not 0 <= self.every < 1e6:
            raise OptionError(f"--every is {self.every:g}: give seconds between frames, 0 or more")
        if not 0 <= self.novelty <= 1:
            raise OptionError(
                f"--novelty is {self.novelty:g}: give a difference between 0 and 1, such as 0.05"
            )
        parse_encodings(self.encodings)
        return self


@dataclass(frozen=True)
class Job:
    """One recording's work. The same job on the same recording gives the same files, byte for byte.

    Attributes:
        kind: of its records: 'caption', 'answer' or 'monitor'.
        bag: path as given.
        requests: what each frame is asked; for monitors one for each, in their order.
        monitors: of one camera each; empty for other kinds.
        selection: which frames.
        model: what answers.
        model_id: name and content hash of its bundle.
    """

    kind: str
    bag: str
    requests: tuple[Request, ...]
    selection: Selection
    model: Model
    model_id: str
    monitors: tuple[Monitor, ...] = ()

    def places(self, camera: str) -> list[int]:
        """Places of the requests that are for a camera, in the order of its periods."""
        if self.kind != "monitor":
            return list(range(len(self.requests)))
        return [place for place, monitor in enumerate(self.monitors) if monitor.cameras == (camera,)]

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for work to go on where it stopped, for JSON."""
        told: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        del told["model"], told["bag"]
        return {**told, "recording": _identity(Path(self.bag))}


Maker = Callable[[Bag], Job]
"""The job for a recording: its cameras and times are known when it is open."""


def questions_job(
    kind: str, requests: Sequence[Request], options: Options, model: Model, model_id: str
) -> Maker:
    """Makes jobs that ask the same of every frame: captions and answers. Raises QuestionError."""
    checked = tuple(check_request(request) for request in requests)
    options.check()

    def make(bag: Bag) -> Job:
        cameras = tuple(find_cameras(bag, options.cameras))
        # Questions go together: one period for all.
        periods = {camera.name: (options.every or 0.0,) for camera in cameras}
        low, high = time_range(bag, options.start, options.end)
        selection = Selection(cameras, periods, options.novelty, low, high, options.encodings)
        return Job(kind, str(bag.path), checked, selection, model, model_id)

    return make


def monitors_job(monitors: Sequence[Monitor], options: Options, model: Model, model_id: str) -> Maker:
    """Makes jobs that evaluate monitors, each at its rate or all at `options.every`."""
    options.check()

    def make(bag: Bag) -> Job:
        cameras = find_cameras(bag, options.cameras)
        single = tuple(resolve(monitors, [camera.name for camera in cameras]))
        every = options.every
        periods = {
            camera.name: tuple(
                1.0 / monitor.rate if every is None else every
                for monitor in single
                if monitor.cameras == (camera.name,)
            )
            for camera in cameras
        }
        watched = tuple(camera for camera in cameras if periods[camera.name])
        low, high = time_range(bag, options.start, options.end)
        selection = Selection(watched, periods, options.novelty, low, high, options.encodings)
        requests = tuple(check_request(monitor.request) for monitor in single)
        return Job("monitor", str(bag.path), requests, selection, model, model_id, single)

    return make


def with_system_prompt(request: Request, system_prompt: str) -> Request:
    """The request, its own system prompt or else this one."""
    return request if request.system_prompt else replace(request, system_prompt=system_prompt)


def _identity(path: Path) -> dict[str, Any]:
    """Name, size and a hash of both ends of each file: a recording that was moved is the same one."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest, size = hashlib.sha256(), 0
    for file in files:
        if not file.is_file() or file.name == "metadata.yaml":
            continue
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLE))
            length = stream.seek(0, 2)
            stream.seek(max(0, length - _SAMPLE))
            digest.update(stream.read(_SAMPLE))
        size += length
    return {"name": path.name, "bytes": size, "sha256": digest.hexdigest()}
