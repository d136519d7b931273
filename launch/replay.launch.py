# SPDX-License-Identifier: Apache-2.0
"""Replay a bag into the tracker and the correction server; all of them end with the bag.

ros2 launch lazyxmem_ros replay.launch.py bag:=FOLDER image_topic:=/camera/image_raw
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import (
    LaunchConfiguration,
    PathJoinSubstitution,
    PythonExpression,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from lazyxmem_ros.spelling import misspelt_arguments

# A bag may name its topic of compressed images as it likes, but most end so.
TRANSPORT_BY_NAME = PythonExpression(
    [
        "'compressed' if '",
        LaunchConfiguration("image_topic"),
        "'.endswith('/compressed') else 'raw'",
    ]
)

ARGUMENTS = [
    DeclareLaunchArgument(
        "bag", description="The rosbag2 bag: its folder, or a single .mcap or .db3 file."
    ),
    DeclareLaunchArgument(
        "image_topic",
        default_value="/image",
        description="The bag's topic of images, raw or compressed, that is tracked.",
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value=TRANSPORT_BY_NAME,
        choices=["raw", "compressed"],
        description="What they are, raw or compressed; if not given, compressed where image_topic "
        "ends in /compressed.",
    ),
    DeclareLaunchArgument(
        "init_mask_topic",
        default_value="",
        description="The bag's topic of label maps that show the objects to track; empty = none, "
        "objects are added by service.",
    ),
    DeclareLaunchArgument(
        "rate",
        default_value="1.0",
        description="Speed against the recording, > 0.",
    ),
    DeclareLaunchArgument(
        "start_offset",
        default_value="0.0",
        description="Seconds to leave out at the beginning.",
    ),
    DeclareLaunchArgument(
        "loop",
        default_value="false",
        choices=["true", "false"],
        description="Whether to begin again at the bag's end.",
    ),
    DeclareLaunchArgument(
        "skip_gaps",
        default_value="0.0",
        description="Seconds: a longer time of the recording without a message is cut to this; "
        "0 = none is.",
    ),
    DeclareLaunchArgument(
        "clock",
        default_value="false",
        choices=["true", "false"],
        description="Whether the replay gives the time (/clock), and the nodes take it.",
    ),
    DeclareLaunchArgument(
        "track",
        default_value="true",
        choices=["true", "false"],
        description="Whether to start the tracker as well; its own arguments (track.launch.py) "
        "can be given here too, but for image, image_reliability and use_sim_time.",
    ),
]
# Arguments of track.launch.py that follow from the bag's, and what to give instead.
SET_HERE = {
    "image": "image_topic is the topic of the bag's images",
    "image_reliability": "it is reliable",
    "use_sim_time": "clock:=true sets it",
}


def _warnings(context: LaunchContext) -> list[LogInfo]:
    known = [argument.name for argument in ARGUMENTS]
    given = [text.partition(":=")[0] for text in context.argv if ":=" in text]
    set_here = [name for name in given if name in SET_HERE]
    useless = [f"{name} changes nothing here: {SET_HERE[name]}" for name in set_here]
    return [LogInfo(msg=text) for text in (*misspelt_arguments(context.argv, known), *useless)]


def _replay(context: LaunchContext) -> list[Node]:
    """The replay node, with the bag's topics renamed to what the tracker takes."""
    images = LaunchConfiguration("image_topic").perform(context)
    masks = LaunchConfiguration("init_mask_topic").perform(context)
    transport = LaunchConfiguration("image_transport").perform(context)
    tracking = LaunchConfiguration("track").perform(context) == "true"

    def parameter(name: str, value_type: type) -> ParameterValue:
        return ParameterValue(LaunchConfiguration(name), value_type=value_type)

    remappings = [(images, "image" if transport == "raw" else "image/compressed")]
    if masks:
        remappings.append((masks, "lazyxmem_tracker/init_mask"))
    return [
        Node(
            package="lazyxmem_ros",
            executable="replay",
            name="lazyxmem_replay",
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                {
                    "bag": parameter("bag", str),
                    "topics": [images, masks] if masks else [images],
                    "rate": parameter("rate", float),
                    "start_offset": parameter("start_offset", float),
                    "skip_gaps": parameter("skip_gaps", float),
                    "loop": parameter("loop", bool),
                    "clock": parameter("clock", bool),
                    "wait_for_subscribers": int(tracking),
                }
            ],
            remappings=remappings,
            output="screen",
            on_exit=Shutdown(reason="the bag has ended"),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Called by `ros2 launch`."""
    track = PathJoinSubstitution([FindPackageShare("lazyxmem_ros"), "launch", "track.launch.py"])
    return LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=_warnings),
            # Before the include, which needs it, and for the replay node without the include.
            DeclareLaunchArgument(
                "namespace",
                default_value="",
                description="Namespace of the nodes and of the topics between them.",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(track),
                launch_arguments={
                    "image": "image",
                    "image_transport": LaunchConfiguration("image_transport"),
                    "namespace": LaunchConfiguration("namespace"),
                    "use_sim_time": LaunchConfiguration("clock"),
                    # With best effort the first image, which the first mask is about, may get
                    # lost while publisher and subscriber still find each other.
                    "image_reliability": "reliable",
                }.items(),
                condition=IfCondition(LaunchConfiguration("track")),
            ),
            OpaqueFunction(function=_replay),
        ]
    )
