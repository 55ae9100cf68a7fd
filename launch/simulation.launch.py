# SPDX-License-Identifier: Apache-2.0
"""The node and two simulated cameras on a desk: ros2 launch mobilevlm_ros simulation.launch.py seed:=3"""

import shutil

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

SHARE = FindPackageShare("mobilevlm_ros")

# As in mobilevlm.launch.py: SIGTERM when launch is gone.
PREFIX = [
    "setpriv --pdeathsig TERM " if shutil.which("setpriv") else "",
    LaunchConfiguration("launch-prefix", default=""),
]

ARGUMENTS = {
    "cameras": ("front,rear", "Names of the cameras, each of which is simulated."),
    "namespace": ("", "Namespace of the node and of the cameras."),
    "seed": ("0", "Seed of the scene before the front camera; the rear one sees the scene of seed + 100."),
    "rate": ("30.0", "Images per second and camera."),
    "scene_seconds": ("20.0", "Seconds until the scene of the next seed comes; 0.0 = never."),
    "width": ("0", "Pixels; 0 = 640, or the photo's."),
    "height": ("0", "Pixels; 0 = 480, or the photo's."),
    "photo": ("", "Photograph before the front camera instead of a scene (path of a file)."),
    "monitors_file": (
        PathJoinSubstitution([SHARE, "config", "monitors.yaml"]),
        "Standing questions, answered on ~/monitors.",
    ),
    "rviz": ("false", "Show the annotated image in RViz."),
}


def _cameras(context: LaunchContext) -> list[Node]:
    names = LaunchConfiguration("cameras").perform(context).split(",")
    return [_camera(index, name.strip()) for index, name in enumerate(names)]


def _camera(index: int, name: str) -> Node:
    seed = PythonExpression([LaunchConfiguration("seed"), f" + {100 * index}"])
    parameters = {
        "seed": ParameterValue(seed, value_type=int),
        "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
        "scene_seconds": ParameterValue(LaunchConfiguration("scene_seconds"), value_type=float),
        "width": ParameterValue(LaunchConfiguration("width"), value_type=int),
        "height": ParameterValue(LaunchConfiguration("height"), value_type=int),
        "frame_id": f"{name or 'camera'}_optical_frame",
    }
    if index == 0:
        parameters["photo"] = ParameterValue(LaunchConfiguration("photo"), value_type=str)
    return Node(
        package="mobilevlm_ros",
        executable="camera_node",
        exec_name="camera_node",  # in the log, instead of setpriv
        name=f"{name.replace('/', '_')}_camera" if name else "camera",
        namespace=LaunchConfiguration("namespace"),
        parameters=[parameters],
        remappings=[(topic, f"{name}/{topic}") for topic in ("image", "image/compressed") if name],
        prefix=PREFIX,
        output="screen",
    )


def generate_launch_description() -> LaunchDescription:
    """The cameras, and everything of mobilevlm.launch.py (whose arguments work here too)."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name,
                    default_value=default,
                    description=text,
                )
                for name, (default, text) in ARGUMENTS.items()
            ),
            # First, so that its environment for large images is also the cameras'.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    [PathJoinSubstitution([SHARE, "launch", "mobilevlm.launch.py"])]
                ),
                launch_arguments={
                    name: LaunchConfiguration(name) for name in ("cameras", "namespace")
                }.items(),
            ),
            OpaqueFunction(function=_cameras),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", PathJoinSubstitution([SHARE, "config", "mobilevlm.rviz"])],
                condition=IfCondition(LaunchConfiguration("rviz")),
                output="screen",
            ),
        ]
    )
