# SPDX-License-Identifier: Apache-2.0
"""The node on a camera in Gazebo (needs ros_gz): ros2 launch mobilevlm_ros gazebo.launch.py

The world may be any that has a camera: name its topic with image:=/your/topic.
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

SHARE = FindPackageShare("mobilevlm_ros")


def generate_launch_description() -> LaunchDescription:
    """Gazebo, the bridge of its camera and clock, and everything of mobilevlm.launch.py."""
    image = LaunchConfiguration("image")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "world",
                default_value=PathJoinSubstitution([SHARE, "config", "camera_world.sdf"]),
                description="World for Gazebo (an SDF file).",
            ),
            DeclareLaunchArgument(
                "image", default_value="/camera/image_raw", description="Topic of the camera in the world."
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    [PathJoinSubstitution([SHARE, "launch", "mobilevlm.launch.py"])]
                ),
                launch_arguments={"image": image, "use_sim_time": "true"}.items(),
            ),
            ExecuteProcess(
                cmd=["gz", "sim", "-r", LaunchConfiguration("world")], output="screen", on_exit=Shutdown()
            ),
            Node(
                package="ros_gz_bridge",
                executable="parameter_bridge",
                arguments=[
                    [image, "@sensor_msgs/msg/Image[gz.msgs.Image"],
                    "/clock@rosgraph_msgs/msg/Clock[gz.msgs.Clock",
                ],
                output="screen",
            ),
        ]
    )
