# SPDX-License-Identifier: Apache-2.0
"""The node on a robot: ros2 launch mobilevlm_ros mobilevlm.launch.py image:=/front/image_raw"""

from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

CONFIG = PathJoinSubstitution([FindPackageShare("mobilevlm_ros"), "config"])

ARGUMENTS = (
    DeclareLaunchArgument(
        "image", default_value="image", description="Topic of the raw images (sensor_msgs/Image)."
    ),
    DeclareLaunchArgument(
        "compressed",
        default_value=[LaunchConfiguration("image"), "/compressed"],
        description="Topic of the compressed images (sensor_msgs/CompressedImage).",
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=PathJoinSubstitution([CONFIG, "nano.yaml"]),
        description="Parameters of the node; the arguments below go before it.",
    ),
    DeclareLaunchArgument("bundle", default_value="", description="Directory of the model; empty = nano."),
    DeclareLaunchArgument(
        "backend",
        default_value="auto",
        choices=["auto", "onnxruntime"],
        description="Engine that runs the model.",
    ),
    DeclareLaunchArgument(
        "transport",
        default_value="auto",
        choices=["auto", "raw", "compressed"],
        description="Which of the two topics to listen to.",
    ),
    DeclareLaunchArgument("name", default_value="mobilevlm", description="Name of the node."),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=["true", "false"],
        description="Take the time from /clock.",
    ),
    DeclareLaunchArgument(
        "respawn",
        default_value="true",
        choices=["true", "false"],
        description="Start the node again if it dies.",
    ),
    DeclareLaunchArgument(
        "large_images",
        default_value="true",
        choices=["true", "false"],
        description="Give Fast DDS room for raw images (config/fastdds.xml), as the camera driver must.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error"],
        description="What the node logs.",
    ),
)


def generate_launch_description() -> LaunchDescription:
    """The arguments and the node."""
    profile = PathJoinSubstitution([CONFIG, "fastdds.xml"])
    large = IfCondition(LaunchConfiguration("large_images"))
    node = Node(
        package="mobilevlm_ros",
        executable="mobilevlm_node",
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "bundle": ParameterValue(LaunchConfiguration("bundle"), value_type=str),
                "backend": ParameterValue(LaunchConfiguration("backend"), value_type=str),
                "transport": ParameterValue(LaunchConfiguration("transport"), value_type=str),
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
            },
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("image/compressed", LaunchConfiguration("compressed")),
        ],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=2.0,
        output="screen",
    )
    return LaunchDescription(
        [
            *ARGUMENTS,
            # Fast DDS 3 reads the first, Fast DDS 2 (Humble, Jazzy) the second, other middlewares neither.
            *(
                SetEnvironmentVariable(
                    name, EnvironmentVariable(name, default_value=profile), condition=large
                )
                for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
            ),
            node,
        ]
    )
