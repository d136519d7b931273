# SPDX-License-Identifier: Apache-2.0
"""What a run through the graph and its watching node (`nodes/graph_watch.py`) agree on.

It imports nothing, so that the watching node starts without PyTorch.
"""

TRACKER = "/lazyxmem_tracker"
RECORDER_NODE = "lazyxmem_recorder"
OPERATOR_NODE = "lazyxmem_simulated_operator"
CONSOLE_NODE = "lazyxmem_operator"
CORRECTION_SERVICE = "/correct_mask"
MASK_TOPIC = f"{TRACKER}/mask"
TRACKS_TOPIC = f"{TRACKER}/tracks"
REQUEST_TOPIC = f"{TRACKER}/correction_request"
ANSWER_TOPIC = f"{TRACKER}/operator_correction"
CORRECTED_TOPIC = f"{TRACKER}/corrected"
INIT_TOPIC = f"{TRACKER}/init_mask"
DIAGNOSTICS_TOPIC = "/diagnostics"
RECORDED_TOPICS = (
    MASK_TOPIC,
    TRACKS_TOPIC,
    REQUEST_TOPIC,
    ANSWER_TOPIC,
    CORRECTED_TOPIC,
    INIT_TOPIC,
    DIAGNOSTICS_TOPIC,
)
TRACKER_TOPICS = (MASK_TOPIC, TRACKS_TOPIC, REQUEST_TOPIC, CORRECTED_TOPIC)
"""Those of them that the tracker publishes from its start on."""
STATUS_PERIOD_S = 0.25
"""Time between two looks of the watching node at the graph."""
