# SPDX-License-Identifier: Apache-2.0
"""Track objects in a camera's images: the tracker and, beside it, the correction server.

ros2 launch lazyxmem_ros track.launch.py image:=/camera/image_raw
"""

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from lazyxmem_ros.spelling import misspelt_arguments

# Fast DDS 2 (ROS 2 Humble and Jazzy) knows the setting by another name than Fast DDS 3.
PROFILE_VARIABLE = (
    "FASTRTPS_DEFAULT_PROFILES_FILE"
    if os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
    else "FASTDDS_DEFAULT_PROFILES_FILE"
)
CONFIG = PathJoinSubstitution([FindPackageShare("lazyxmem_ros"), "config"])

ARGUMENTS = [
    DeclareLaunchArgument(
        "image",
        default_value="image",
        description="Topic of the camera's raw images; compressed ones are on <image>/compressed.",
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="",
        choices=["", "raw", "compressed"],
        description="Which of them are tracked, raw or compressed; empty = as the parameter file "
        "says.",
    ),
    DeclareLaunchArgument(
        "namespace",
        default_value="",
        description="Namespace of the nodes and of the service between them.",
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=PathJoinSubstitution([CONFIG, "tracker.yaml"]),
        description="Parameters of the tracker, a YAML file.",
    ),
    DeclareLaunchArgument(
        "correction_params_file",
        default_value=PathJoinSubstitution([CONFIG, "correction.yaml"]),
        description="Parameters of the correction server, a YAML file.",
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        description="Where the networks run: auto, cpu, cuda or cuda:N; empty = as the parameter "
        "files say.",
    ),
    DeclareLaunchArgument(
        "max_pixels",
        default_value="",
        description="Pixels of an image at most, for each node; empty = as its parameters say.",
    ),
    DeclareLaunchArgument(
        "weights",
        default_value="",
        description="XMem weights of the tracker; empty = as its parameter file says.",
    ),
    DeclareLaunchArgument(
        "corrector",
        default_value="",
        description="Who corrects masks: auto, refiner, sam_hq, grabcut; empty = as its file says.",
    ),
    DeclareLaunchArgument(
        "correction_server",
        default_value="true",
        choices=["true", "false"],
        description="Whether to start the correction server; false where another host runs it.",
    ),
    DeclareLaunchArgument(
        "operator",
        default_value="false",
        choices=["true", "false"],
        description="Whether to start the operator's console, a web page to watch and answer in.",
    ),
    DeclareLaunchArgument(
        "operator_params_file",
        default_value="",
        description="Parameters of the console, a YAML file: its certificate, key, token file and "
        "trackers, say; empty = the node's own.",
    ),
    DeclareLaunchArgument(
        "operator_address",
        default_value="127.0.0.1",
        description="Address that its page is served on; any but loopback needs the token that it "
        "prints.",
    ),
    DeclareLaunchArgument(
        "operator_port",
        default_value="8080",
        description="Port that its page is served on.",
    ),
    DeclareLaunchArgument(
        "image_reliability",
        default_value="",
        choices=["", "best_effort", "reliable"],
        description="Quality of service of the image topic; empty = as the parameter file says.",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="",
        choices=["", "true", "false"],
        description="Whether the tracker configures and activates itself, or (false) a lifecycle "
        "manager does; empty = as the parameter file says.",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=["true", "false"],
        description="Whether time comes from /clock, as with a bag that is replayed.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Least severe messages that the nodes log.",
    ),
    DeclareLaunchArgument(
        "fastdds_profile",
        default_value=EnvironmentVariable(
            PROFILE_VARIABLE,
            default_value=PathJoinSubstitution([CONFIG, "fastdds.xml"]),
        ),
        description="Fast DDS profile; the default one makes room in shared memory for images. "
        "Whoever publishes the images needs it too.",
    ),
]


def _warnings(context: LaunchContext) -> list[LogInfo]:
    known = [argument.name for argument in ARGUMENTS]
    return [LogInfo(msg=text) for text in misspelt_arguments(context.argv, known)]


def _check_files(context: LaunchContext) -> None:
    """Raises FileNotFoundError for parameter files, without which the nodes would take defaults."""
    for name in ("params_file", "correction_params_file", "operator_params_file"):
        path = LaunchConfiguration(name).perform(context)
        if not os.path.isfile(path) and (path or name != "operator_params_file"):
            raise FileNotFoundError(f"{name}:={path}: there is no such file")


def _nodes(context: LaunchContext) -> list[Node]:
    """The nodes; an argument that was given goes over the parameter file."""

    def given(*names: str) -> dict[str, str]:
        values = {name: LaunchConfiguration(name).perform(context) for name in names}
        return {name: value for name, value in values.items() if value}

    use_sim_time = {
        "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    }
    max_pixels = {name: int(value) for name, value in given("max_pixels").items()}
    log_level = ["--log-level", LaunchConfiguration("log_level")]
    image = LaunchConfiguration("image").perform(context)

    tracker = LifecycleNode(
        package="lazyxmem_ros",
        executable="tracker",
        name="lazyxmem_tracker",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            given("device", "weights", "image_transport", "image_reliability"),
            max_pixels,
            {name: value == "true" for name, value in given("autostart").items()},
            use_sim_time,
        ],
        remappings=[("image", image), ("image/compressed", f"{image}/compressed")],
        ros_arguments=log_level,
        output="screen",
    )
    correction = Node(
        package="lazyxmem_ros",
        executable="correction",
        name="lazyxmem_correction",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("correction_params_file"),
            given("device", "corrector"),
            max_pixels,
            use_sim_time,
        ],
        ros_arguments=log_level,
        output="screen",
    )
    operator = Node(
        package="lazyxmem_ros",
        executable="operator",
        name="lazyxmem_operator",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            *given("operator_params_file").values(),
            {
                # A text, or launch_ros takes `::` for YAML.
                "address": ParameterValue(LaunchConfiguration("operator_address"), value_type=str),
                "port": ParameterValue(LaunchConfiguration("operator_port"), value_type=int),
            },
            max_pixels,
            use_sim_time,
        ],
        ros_arguments=log_level,
        output="screen",
    )

    def is_wanted(name: str) -> bool:
        return LaunchConfiguration(name).perform(context) == "true"

    return [
        tracker,
        *([correction] if is_wanted("correction_server") else []),
        *([operator] if is_wanted("operator") else []),
    ]


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    return LaunchDescription(
        [
            *ARGUMENTS,
            SetEnvironmentVariable(PROFILE_VARIABLE, LaunchConfiguration("fastdds_profile")),
            OpaqueFunction(function=_warnings),
            OpaqueFunction(function=_check_files),
            OpaqueFunction(function=_nodes),
        ]
    )
