# SPDX-License-Identifier: Apache-2.0
"""The node on a robot: ros2 launch mobilevlm_ros mobilevlm.launch.py image:=/front/image_raw"""

import os
import shutil

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

CONFIG = PathJoinSubstitution([FindPackageShare("mobilevlm_ros"), "config"])
SWITCH = None  # true or false in any capitalisation, see _switch

# Fast DDS 2 and 3 read the profile's path from different variables; other middlewares from neither.
PROFILE = (
    f"FAST{'RTPS' if os.environ.get('ROS_DISTRO') in ('humble', 'jazzy') else 'DDS'}_DEFAULT_PROFILES_FILE"
)

# A launch that is ended by SIGTERM or SIGKILL leaves its processes running (ros2/launch #666): ours get
# SIGTERM then.
PREFIX = [
    "setpriv --pdeathsig TERM " if shutil.which("setpriv") else "",
    LaunchConfiguration("launch-prefix", default=""),
]

ARGUMENTS = {
    "image": ("image", "Topic of the raw images (sensor_msgs/Image).", None),
    "compressed": (
        [LaunchConfiguration("image"), "/compressed"],
        "Topic of the compressed images (sensor_msgs/CompressedImage).",
        None,
    ),
    "params_file": (PathJoinSubstitution([CONFIG, "nano.yaml"]), "Parameters of the node.", None),
    "bundle": ("", "Directory of the model; empty = as in params_file.", None),
    "backend": (
        "",
        "Engine that runs the model; empty = as in params_file.",
        ["", "auto", "tensorrt", "onnxruntime-cuda", "onnxruntime-cpu", "onnxruntime", "torch"],
    ),
    "cameras": (
        "",
        "Names of the cameras, e.g. front,rear: each listens to <name>/image instead of `image`; empty = as "
        "in params_file.",
        None,
    ),
    "monitors_file": (
        "",
        "Standing questions (see config/monitors.yaml); empty = as in params_file.",
        None,
    ),
    "transport": (
        "",
        "Which of the two topics to listen to; empty = as in params_file.",
        ["", "auto", "raw", "compressed"],
    ),
    "name": ("mobilevlm", "Name of the node.", None),
    "namespace": ("", "Namespace of the node.", None),
    "use_sim_time": ("false", "Take the time from /clock.", SWITCH),
    "autostart": (
        "",
        "Configure and activate the node when it starts; false: somebody else does (a lifecycle manager); "
        "empty = as in params_file.",
        SWITCH,
    ),
    "enclave": ("", "Security enclave of the node (SROS2), e.g. /mobilevlm; empty = the default.", None),
    "respawn": ("true", "Start the node again if it dies.", SWITCH),
    "large_images": (
        "true",
        "Give Fast DDS room for raw images (config/fastdds.xml), unless the environment names a profile; "
        "the camera driver needs the same.",
        SWITCH,
    ),
    "log_level": ("info", "What the node logs.", ["debug", "info", "warn", "error"]),
}


def _switch(context: LaunchContext, name: str) -> bool | None:
    """True or false, however it is capitalised; None where it is empty."""
    value = LaunchConfiguration(name).perform(context).strip()
    known = {"true": True, "1": True, "false": False, "0": False, "": None}
    if value.lower() not in known:
        raise RuntimeError(f"{name}:={value}: give true or false")
    return known[value.lower()]


def _profile(context: LaunchContext) -> list[SetEnvironmentVariable]:
    if not _switch(context, "large_images"):
        return []
    profile = EnvironmentVariable(PROFILE, default_value=PathJoinSubstitution([CONFIG, "fastdds.xml"]))
    return [SetEnvironmentVariable(PROFILE, profile)]


def _node(context: LaunchContext) -> list[Node]:
    params_file = LaunchConfiguration("params_file").perform(context)
    if not os.path.isfile(os.path.expanduser(params_file)):
        raise RuntimeError(f"params_file:={params_file}: there is no such file")
    given = {
        name: value
        for name in ("bundle", "backend", "transport", "monitors_file")
        if (value := LaunchConfiguration(name).perform(context))
    }
    cameras = LaunchConfiguration("cameras").perform(context)
    lists = {"cameras": [name.strip() for name in cameras.split(",")]} if cameras else {}
    switches = {"use_sim_time": bool(_switch(context, "use_sim_time"))}
    if (autostart := _switch(context, "autostart")) is not None:
        switches["autostart"] = autostart
    enclave = LaunchConfiguration("enclave").perform(context)
    node = Node(
        package="mobilevlm_ros",
        executable="mobilevlm_node",
        exec_name="mobilevlm_node",  # in the log, instead of setpriv
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            os.path.expanduser(params_file),
            # A value that looks like a number is a text all the same.
            {**{name: ParameterValue(value, value_type=str) for name, value in given.items()}, **lists},
            switches,
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("image/compressed", LaunchConfiguration("compressed")),
        ],
        ros_arguments=[
            "--log-level",
            LaunchConfiguration("log_level"),
            *(["--enclave", enclave] if enclave else []),
        ],
        respawn=bool(_switch(context, "respawn")),
        respawn_delay=2.0,
        prefix=PREFIX,
        output="screen",
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    """The arguments, room for large images, and the node."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
                for name, (default, text, choices) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=_profile),
            OpaqueFunction(function=_node),
        ]
    )
