# SPDX-License-Identifier: Apache-2.0
"""The node and a simulated camera on a desk: ros2 launch mobilevlm_ros simulation.launch.py seed:=3"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """The camera, and everything of mobilevlm.launch.py (whose arguments work here too)."""
    launch_directory = PathJoinSubstitution([FindPackageShare("mobilevlm_ros"), "launch"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("seed", default_value="0", description="Seed of the scene."),
            DeclareLaunchArgument("rate", default_value="30.0", description="Images per second."),
            DeclareLaunchArgument("width", default_value="0", description="Pixels; 0 = 640, or the photo's."),
            DeclareLaunchArgument(
                "height", default_value="0", description="Pixels; 0 = 480, or the photo's."
            ),
            DeclareLaunchArgument(
                "photo", default_value="", description="Photograph instead of a scene (path)."
            ),
            # First, so that its environment for large images is also the camera's.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    [PathJoinSubstitution([launch_directory, "mobilevlm.launch.py"])]
                )
            ),
            Node(
                package="mobilevlm_ros",
                executable="camera_node",
                name="camera",
                parameters=[
                    {
                        "seed": ParameterValue(LaunchConfiguration("seed"), value_type=int),
                        "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                        "width": ParameterValue(LaunchConfiguration("width"), value_type=int),
                        "height": ParameterValue(LaunchConfiguration("height"), value_type=int),
                        "photo": ParameterValue(LaunchConfiguration("photo"), value_type=str),
                    }
                ],
                output="screen",
            ),
        ]
    )
