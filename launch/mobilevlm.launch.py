# SPDX-License-Identifier: Apache-2.0
"""The node on a robot: ros2 launch mobilevlm_ros mobilevlm.launch.py image:=/front/image_raw"""

import os
import shutil

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

CONFIG = PathJoinSubstitution([FindPackageShare("mobilevlm_ros"), "config"])
SWITCH = ["true", "false"]

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
    "respawn": ("true", "Start the node again if it dies.", SWITCH),
    "large_images": (
        "true",
        "Give Fast DDS room for raw images (config/fastdds.xml), unless the environment names a profile; "
        "the camera driver needs the same.",
        SWITCH,
    ),
    "log_level": ("info", "What the node logs.", ["debug", "info", "warn", "error"]),
}


def _node(context: LaunchContext) -> list[Node]:
    given = {
        name: value
        for name in ("bundle", "backend", "transport", "monitors_file")
        if (value := LaunchConfiguration(name).perform(context))
    }
    cameras = LaunchConfiguration("cameras").perform(context)
    lists = {"cameras": [name.strip() for name in cameras.split(",")]} if cameras else {}
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    node = Node(
        package="mobilevlm_ros",
        executable="mobilevlm_node",
        exec_name="mobilevlm_node",  # in the log, instead of setpriv
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            # A value that looks like a number is a text all the same.
            {**{name: ParameterValue(value, value_type=str) for name, value in given.items()}, **lists},
            {"use_sim_time": use_sim_time},
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("image/compressed", LaunchConfiguration("compressed")),
        ],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        respawn=LaunchConfiguration("respawn").perform(context) == "true",
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
            SetEnvironmentVariable(
                PROFILE,
                EnvironmentVariable(PROFILE, default_value=PathJoinSubstitution([CONFIG, "fastdds.xml"])),
                condition=IfCondition(LaunchConfiguration("large_images")),
            ),
            OpaqueFunction(function=_node),
        ]
    )
