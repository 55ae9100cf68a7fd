# SPDX-License-Identifier: Apache-2.0
"""A small recording of simulated scenes: what a robot's cameras would have recorded, with the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.bags.messages import message_type, time_message, typestore
from mobilevlm_ros.bags.output.mcap_writer import McapWriter
from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.files.atomic import new_file
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sequence import SceneSequence

START_NS = 1_767_268_800_000_000_000
"""2026-01-01T12:00:00Z: the same options give the same file, byte for byte."""

SEED_STEP = 1000
"""Between the cameras' first scenes."""

SPEED = 1.0
"""Of the vehicle as /odom and /tf tell it, m/s, along x."""

MOUNT = (0.5, 0.0, 1.2)
"""Metres: where the first camera is mounted on base_link, as /tf_static tells it; the next ones stand to the
right of it, APART metres from each other."""

APART = 0.3

_FORWARD = (-0.5, 0.5, -0.5, 0.5)
"""Of a camera's optical frame that looks along x: its z is forward, its x right, its y down (REP 103)."""

_SECOND = 1_000_000_000
_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_STRING, _ODOMETRY = "std_msgs/msg/String", "nav_msgs/msg/Odometry"
_TRANSFORMS = "tf2_msgs/msg/TFMessage"


@dataclass(frozen=True)
class DemoOptions:
    """What is recorded.

    Attributes:
        seconds: length.
        rate: images per second and camera.
        cameras: their names; 'front' publishes front/image or front/image/compressed.
        seed: of the first scene of the first camera.
        scene_seconds: until the scene of the next seed comes; 0: never.
        raw: images of encoding rgb8; else JPEG.
        width, height: pixels.
        quality: of the JPEG, 1 to 100.
    """

    seconds: float = 20.0
    rate: float = 5.0
    cameras: Sequence[str] = ("front",)
    seed: int = 0
    scene_seconds: float = 4.0
    raw: bool = False
    width: int = 640
    height: int = 480
    quality: int = 90

    def check(self) -> DemoOptions:
        """Itself. Raises OptionError for what cannot be recorded."""
        bounds = (
            ("--seconds", self.seconds, 0.0, 86400.0),
            ("--rate", self.rate, 0.01, 240.0),
            ("--scene-seconds", self.scene_seconds, 0.0, 86400.0),
            ("--seed", self.seed, 0, 2**31 - 1),
            ("width of --size", self.width, 16, 8192),
            ("height of --size", self.height, 16, 8192),
            ("--jpeg-quality", self.quality, 1, 100),
        )
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise OptionError(f"{name} is {value:g}: give {low:g} to {high:g}")
        if len(set(self.cameras)) < len(self.cameras):
            raise OptionError("--camera names one camera twice: give each its own name")
        return self


def record_demo(path: Path, options: DemoOptions, *, overwrite: bool = False) -> int:
    """Writes the MCAP; returns how many images it holds.

    Beside the images it holds /odom, /tf and /tf_static (base_link and the cameras in odom), and for each
    camera NAME/camera/scene: what the simulated camera_node publishes as ~/scene, from which the truth about
    each image can be computed.

    Raises:
        OptionError, OutputError.
    """
    options.check()
    with new_file(path, overwrite=overwrite) as part, part.open("xb") as stream:
        writer = McapWriter(stream)
        count = _record(writer, options)
        writer.finish()
    return count


def _record(writer: McapWriter, options: DemoOptions) -> int:
    kind = _IMAGE if options.raw else _COMPRESSED
    suffix = "image" if options.raw else "image/compressed"
    odometry, tf = writer.add_topic("/odom", _ODOMETRY), writer.add_topic("/tf", _TRANSFORMS)
    cameras, mounts = [], []
    for number, name in enumerate(options.cameras):
        below = "/".join(("", *(part for part in name.split("/") if part)))
        seed = options.seed + SEED_STEP * number
        scene = writer.add_topic(f"{below}/camera/scene", _STRING)
        writer.write(scene, START_NS, _serialized(_STRING, data=json.dumps(_description(options, seed))))
        frame_id = f"{name.strip('/').replace('/', '_')}_camera_optical_frame".lstrip("_")
        at = (MOUNT[0], MOUNT[1] - APART * number, MOUNT[2])
        mounts.append(_transform(START_NS, "base_link", frame_id, at, _FORWARD))
        cameras.append(
            (
                writer.add_topic(f"{below}/{suffix}", kind),
                SceneSequence(seed, options.scene_seconds),
                frame_id,
            )
        )
    static = writer.add_topic("/tf_static", _TRANSFORMS)
    writer.write(static, START_NS, _serialized(_TRANSFORMS, transforms=mounts))
    frames = max(1, round(options.seconds * options.rate))
    for frame in range(frames):
        stamp_ns = START_NS + round(frame * _SECOND / options.rate)
        seconds = (stamp_ns - START_NS) / _SECOND
        writer.write(odometry, stamp_ns, _odometry(stamp_ns, SPEED * seconds))
        base = _transform(stamp_ns, "odom", "base_link", (SPEED * seconds, 0.0, 0.0))
        writer.write(tf, stamp_ns, _serialized(_TRANSFORMS, transforms=[base]))
        for topic, sequence, frame_id in cameras:
            rgb = observe(*sequence.at(seconds), options.width, options.height).image
            writer.write(topic, stamp_ns, _picture(rgb, stamp_ns, frame_id, options))
    return frames * len(cameras)


def _description(options: DemoOptions, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "scene_seconds": options.scene_seconds,
        "start_ns": START_NS,
        "photo": "",
        "width": options.width,
        "height": options.height,
    }


def _serialized(kind: str, **fields: Any) -> bytes:
    return bytes(typestore().serialize_cdr(message_type(kind)(**fields), kind))


def _header(stamp_ns: int, frame_id: str) -> Any:
    return message_type("std_msgs/msg/Header")(stamp=time_message(stamp_ns), frame_id=frame_id)


def _picture(rgb: NDArray[np.uint8], stamp_ns: int, frame_id: str, options: DemoOptions) -> bytes:
    header = _header(stamp_ns, frame_id)
    if options.raw:
        height, width = rgb.shape[:2]
        return _serialized(
            _IMAGE,
            header=header,
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=np.ascontiguousarray(rgb).reshape(-1),
        )
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, options.quality])
    return _serialized(_COMPRESSED, header=header, format="rgb8; jpeg compressed bgr8", data=data.reshape(-1))


def _vector(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Any:
    return message_type("geometry_msgs/msg/Vector3")(x=x, y=y, z=z)


def _rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0, w: float = 1.0) -> Any:
    return message_type("geometry_msgs/msg/Quaternion")(x=x, y=y, z=z, w=w)


def _transform(
    stamp_ns: int,
    parent: str,
    child: str,
    at: Sequence[float],
    turned: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
) -> Any:
    return message_type("geometry_msgs/msg/TransformStamped")(
        header=_header(stamp_ns, parent),
        child_frame_id=child,
        transform=message_type("geometry_msgs/msg/Transform")(
            translation=_vector(*at), rotation=_rotation(*turned)
        ),
    )


def _odometry(stamp_ns: int, x: float) -> bytes:
    unknown = np.zeros(36)
    pose = message_type("geometry_msgs/msg/Pose")(
        position=message_type("geometry_msgs/msg/Point")(x=x, y=0.0, z=0.0),
        orientation=_rotation(),
    )
    twist = message_type("geometry_msgs/msg/Twist")(linear=_vector(SPEED), angular=_vector())
    return _serialized(
        _ODOMETRY,
        header=_header(stamp_ns, "odom"),
        child_frame_id="base_link",
        pose=message_type("geometry_msgs/msg/PoseWithCovariance")(pose=pose, covariance=unknown),
        twist=message_type("geometry_msgs/msg/TwistWithCovariance")(twist=twist, covariance=unknown),
    )
