# SPDX-License-Identifier: Apache-2.0
"""A person takes back a correction by a call of the node's service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from builtin_interfaces.msg import Time
from node_graph import header, labels_of, scene, wait_for
from tracker_harness import Tracker, ask_the_operator

from lazyxmem_ros.basics import TAKEN_BACK
from lazyxmem_ros.data.records import read_answers, record_files
from lazyxmem_ros.msg import Correction, Prompt
from lazyxmem_ros.nodes.conversions import mask_message
from lazyxmem_ros.srv import RetractCorrection


def take_back(tracker: Tracker, stamp: Time, object_id: int = 1) -> RetractCorrection.Response:
    request = RetractCorrection.Request(stamp=stamp, id=object_id)
    answer: RetractCorrection.Response = tracker.probe.call(
        RetractCorrection, f"{tracker.name}/retract_correction", request
    )
    return answer


def test_it_is_taken_back_said_and_not_in_the_dataset(
    own_tracker: Callable[..., Tracker], tmp_path: Path
) -> None:
    tracker = own_tracker(record_dir=str(tmp_path / "records"))
    asked = ask_the_operator(tracker)
    before = labels_of(tracker.mask_of(1))
    stamp = asked.header.stamp
    assert not take_back(tracker, stamp).accepted, "nothing has been said yet"
    prompt = Prompt(mask=mask_message(~scene(1)[1], header(1)))
    message = Correction(header=header(1), id=1, prompt=prompt)
    tracker.probe.publish(f"{tracker.name}/operator_correction", message)
    wait_for(lambda: tracker.out("corrected"), "what became of the correction")
    assert tracker.out("corrected")[0].applied
    answer = take_back(tracker, stamp)
    assert answer.accepted, answer.reason
    wait_for(lambda: len(tracker.out("corrected")) == 2, "what is said of it")
    said = tracker.out("corrected")[1]
    assert (said.applied, said.id, said.header.stamp) == (False, 1, stamp)
    assert said.message.startswith(TAKEN_BACK)
    assert (tracker.node._parts.received.tracked.labels == before).all()
    answer = take_back(tracker, stamp)
    assert not answer.accepted
    assert "no correction of object 1" in answer.reason
    assert not take_back(tracker, Time(sec=-1)).accepted
    records = tracker.node._parts.records
    wait_for(lambda: records.written >= 5, "the records")
    answers = read_answers(record_files(tmp_path / "records"))
    assert answers.taken_back == 1
    assert not any(answers.masks.values())
    tracker.send(2)
