# SPDX-License-Identifier: Apache-2.0
"""Cameras without ROS: a simulated scene, a picture file that something rewrites, a video device or file."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, time_ns
from typing import Protocol

import cv2
import numpy as np

from mobilevlm_ros.errors import ImageError, OptionError
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.processing.image_file import read_picture
from mobilevlm_ros.server.services.service import Refusal
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

SIMULATION = "simulation"
FIRST_FRAME = 10.0
"""Seconds that a device may take to its first frame."""


class LocalCamera(Protocol):
    """Gives its newest frame. Thread-safe."""

    @property
    def source(self) -> str:
        """What it looks at."""

    @property
    def age(self) -> float | None:
        """Seconds since its newest frame; None: none yet."""

    def frame(self) -> Frame:
        """The newest frame. Raises ImageError or Refusal ('no_frame')."""

    def close(self) -> None:
        """Let go of the device."""


def open_cameras(specifications: Sequence[str]) -> dict[str, LocalCamera]:
    """Cameras of NAME=SOURCE texts; see `open_camera`. Raises OptionError, ImageError."""
    cameras: dict[str, LocalCamera] = {}
    for text in specifications:
        name, separator, source = text.partition("=")
        if not separator or not name or not source:
            raise OptionError(f"--camera {text!r}: write NAME=SOURCE, as in front=/dev/video0")
        if name in cameras:
            raise OptionError(f"--camera {name!r} is given twice: give each camera its own name")
        cameras[name] = open_camera(name, source)
    return cameras


def open_camera(name: str, source: str) -> LocalCamera:
    """A camera of a source: 'simulation' or 'simulation:SEED', a picture file, else a video device (its
    number or /dev/videoN), file or URL that OpenCV opens.
    """
    if source == SIMULATION or source.startswith(f"{SIMULATION}:"):
        seed = source.partition(":")[2] or "0"
        if not seed.isdecimal():
            raise OptionError(f"--camera {name}={source}: the seed of a simulation is a number")
        return SimulatedCamera(name, int(seed))
    if Path(source).suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp"):
        return PictureFile(name, Path(source))
    return VideoCamera(name, source)


class SimulatedCamera:
    """The scene of a seed, with the truth that the simulation knows."""

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._scene = sample_scene(seed)
        self._start = time_ns()
        self.source = f"{SIMULATION}:{seed}"

    @property
    def age(self) -> float | None:
        """It renders what is asked for."""
        return 0.0

    def frame(self) -> Frame:
        """The scene now."""
        stamp = time_ns()
        image = observe(self._scene, (stamp - self._start) * 1e-9).image
        return Frame(image, stamp, f"{self._name}_optical_frame", self._name)

    def close(self) -> None:
        """Nothing to let go of."""


class PictureFile:
    """A picture file; read again when it changes. Its stamp is the time of its last change."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self.source = path.name
        self.frame()

    @property
    def age(self) -> float | None:
        """Since the file was written."""
        return None if self._frame is None else max(0.0, (time_ns() - self._frame.stamp_ns) * 1e-9)

    def frame(self) -> Frame:
        """The file's picture."""
        with self._lock:
            try:
                stamp = self._path.stat().st_mtime_ns
            except OSError as error:
                raise ImageError(f"{self._path} cannot be read: {error.strerror or error}") from error
            if self._frame is None or self._frame.stamp_ns != stamp:
                self._frame = Frame(read_picture(self._path), stamp, "", self._name)
            return self._frame

    def close(self) -> None:
        """Nothing to let go of."""


class VideoCamera:
    """A device, file or stream that OpenCV opens; a thread keeps its newest frame."""

    def __init__(self, name: str, source: str) -> None:
        self._name = name
        self.source = source
        self._capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
        if not self._capture.isOpened():
            raise OptionError(
                f"--camera {name}={source} cannot be opened: give a picture or video file, the number of a "
                f"device, a URL, or '{SIMULATION}'"
            )
        self._frame: Frame | None = None
        self._heard = 0.0  # monotonic
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._read, name=f"camera {name}", daemon=True)
        self._thread.start()
        self.frame()  # one that gives nothing is told at the start

    @property
    def age(self) -> float | None:
        """Since the newest frame arrived."""
        return None if self._frame is None else monotonic() - self._heard

    def frame(self) -> Frame:
        """The newest frame."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._stopping, FIRST_FRAME)
            if self._frame is None:
                raise Refusal("no_frame", f"camera {self._name!r} ({self.source}) gives no frame: check it")
            return self._frame

    def close(self) -> None:
        """Stop reading."""
        self._stopping = True
        self._thread.join(2.0)
        self._capture.release()

    def _read(self) -> None:
        """Until it ends; the last frame stays."""
        pause = threading.Event()
        rate = self._capture.get(cv2.CAP_PROP_FPS) or 30.0
        while not self._stopping:
            good, image = self._capture.read()
            if not good:
                break
            frame = Frame(np.ascontiguousarray(image[..., ::-1], np.uint8), time_ns(), "", self._name)
            with self._changed:
                self._frame, self._heard = frame, monotonic()
                self._changed.notify_all()
            pause.wait(1.0 / min(rate, 120.0) if Path(self.source).is_file() else 0.0)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
