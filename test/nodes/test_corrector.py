# SPDX-License-Identifier: Apache-2.0
"""The correction server: prompts in, masks out, nonsense refused."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from node_graph import (
    HEIGHT,
    WAIT_S,
    WIDTH,
    Probe,
    Spinner,
    header,
    parameters,
    scene,
    scene_message,
    wait_for,
)
from rclpy.node import Node
from sensor_msgs.msg import Image, RegionOfInterest

from lazyxmem_ros import correction
from lazyxmem_ros.correction import Refinement
from lazyxmem_ros.msg import Prompt
from lazyxmem_ros.nodes import corrector
from lazyxmem_ros.nodes.conversions import mask_message, read_mask
from lazyxmem_ros.nodes.correction_client import MAX_PENDING, CorrectionAnswer, CorrectionClient
from lazyxmem_ros.nodes.corrector import CorrectionNode
from lazyxmem_ros.nodes.diagnostics import ERROR, MAX_TEXT, OK, LogLimiter
from lazyxmem_ros.nodes.running import NodeStartError
from lazyxmem_ros.srv import CorrectMask

NAMESPACE = "/correction_test"
SERVICE = f"{NAMESPACE}/correct_mask"
ON_THE_WAY_S = 0.5
"""Time for requests to reach the server's queue."""


class CountingCorrector:
    """Stands for a corrector whose embedding is dear: notes the keys it was given."""

    name = "counting"

    def __init__(self) -> None:
        self.keys: list[object] = []
        self.images: list[np.ndarray] = []

    def refine(
        self, image: np.ndarray, prompts: list[correction.Prompt], *, image_key: object = None
    ) -> list[Refinement]:
        self.keys.append(image_key)
        self.images.append(image)
        return [Refinement(np.ones(image.shape[:2], bool), 0.5) for _ in prompts]


@pytest.fixture(scope="module")
def server(ros: None) -> Iterator[CorrectionNode]:
    arguments = ["--ros-args", "-r", f"__ns:={NAMESPACE}", "-p", "corrector:=grabcut"]
    node = CorrectionNode(cli_args=arguments)
    spinner = Spinner(node)
    yield node
    spinner.close()


def test_the_embedded_refiner_serves_where_nothing_else_is_asked_for(
    ros: None, probe: Probe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(tmp_path))  # where no SAM-HQ lies
    node = CorrectionNode(cli_args=["--ros-args", "-r", "__ns:=/default_corrector"])
    spinner = Spinner(node)
    try:
        asked = request(3, mask=mask_message(scene(3)[1], header(3)), prior_ious=[0.95])
        response = probe.call(CorrectMask, "/default_corrector/correct_mask", asked)
    finally:
        spinner.close()
    assert response.success, response.message
    assert response.corrector == "refiner"
    assert iou(read_mask(response.masks[0]), scene(3)[1]) > 0.9


def request(index: int = 0, **fields: Any) -> CorrectMask.Request:
    _, mask = scene(index)
    rows, columns = np.nonzero(mask)
    middle = Point(x=float(columns.mean()), y=float(rows.mean()))
    about = {"image": scene_message(index), "prior_ious": []}
    about |= {name: fields.pop(name) for name in about if name in fields}
    return CorrectMask.Request(prompts=[Prompt(**{"positive": [middle], **fields})], **about)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_a_click_gives_the_object(server: CorrectionNode, probe: Probe, encoding: str) -> None:
    asked = request(3, image=scene_message(3, encoding))
    response = probe.call(CorrectMask, SERVICE, asked)
    assert response.success, response.message
    assert response.corrector == "grabcut"
    assert response.masks[0].header == header(3)
    assert 0.0 <= response.scores[0] <= 1.0
    assert iou(read_mask(response.masks[0]), scene(3)[1]) > 0.9


class FailingCorrector(CountingCorrector):
    """Gives back something with the score by which correctors say that they failed."""

    def refine(
        self, image: np.ndarray, prompts: list[correction.Prompt], *, image_key: object = None
    ) -> list[Refinement]:
        return [Refinement(np.ones(image.shape[:2], bool), 0.0) for _ in prompts]


def test_an_image_with_more_pixels_than_its_own_limit_is_refused(ros: None, probe: Probe) -> None:
    """Whoever asks may have another limit of that name."""
    limit = f"max_pixels:={HEIGHT * WIDTH - 1}"
    arguments = ["--ros-args", "-r", "__ns:=/small_corrector", "-p", limit]
    node = CorrectionNode(cli_args=[*arguments, "-p", "corrector:=grabcut"])
    spinner = Spinner(node)
    try:
        response = probe.call(CorrectMask, "/small_corrector/correct_mask", request(3))
    finally:
        spinner.close()
    assert not response.success
    begin, end = "/small_corrector/lazyxmem_correction cannot read it: ", "are read (max_pixels)"
    assert (response.message.startswith(begin), response.message.endswith(end)) == (True, True)


def test_a_corrector_that_failed_gives_no_mask(
    server: CorrectionNode, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_corrector", FailingCorrector())
    response = probe.call(CorrectMask, SERVICE, request(3))
    assert not response.success
    assert response.message == "the corrector found nothing"
    assert [mask.height for mask in response.masks] == [0]


class BrokenCorrector(CountingCorrector):
    """A corrector whose device gives up."""

    def refine(
        self, image: np.ndarray, prompts: list[correction.Prompt], *, image_key: object = None
    ) -> list[Refinement]:
        raise RuntimeError("out of memory")


def test_a_corrector_that_breaks_costs_its_request_alone(
    server: CorrectionNode, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(server, "_corrector", BrokenCorrector())
        response = probe.call(CorrectMask, SERVICE, request(3))
    assert not response.success
    assert response.message == "RuntimeError: out of memory"
    assert probe.call(CorrectMask, SERVICE, request(3)).success


def test_as_many_requests_as_may_wait_are_answered(
    server: CorrectionNode, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one takes long; rclpy would keep ten and say nothing of the others."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(CountingCorrector):
        def refine(self, *given: Any, **named: Any) -> list[Refinement]:
            begun.set()
            go_on.wait(WAIT_S)
            return super().refine(*given, **named)

    monkeypatch.setattr(server, "_corrector", Slow())
    node = Node("asker", namespace=NAMESPACE)
    client = CorrectionClient(node)
    spinner = Spinner(node)
    wait_for(client.is_available, "the service")
    answers: list[CorrectionAnswer] = []
    prompt = correction.Prompt(positive=np.array([[20.0, 30.0]], np.float32))

    def ask() -> None:
        client.request(scene_message(0), [prompt], timeout=WAIT_S, on_answers=answers.extend)

    try:
        spinner.executor.create_task(ask)
        assert begun.wait(WAIT_S)
        for _ in range(MAX_PENDING - 1):
            spinner.executor.create_task(ask)
        wait_for(lambda: client.measures.counts["requests"] == MAX_PENDING, "the requests")
        time.sleep(ON_THE_WAY_S)
        go_on.set()
        wait_for(lambda: len(answers) == MAX_PENDING, "an answer each")
    finally:
        go_on.set()
        client.close()
        spinner.close()
    assert {answer.fault for answer in answers} == {""}


def test_that_its_prompts_fail_is_an_alarm(ros: None, probe: Probe) -> None:
    node = CorrectionNode(
        cli_args=["--ros-args", "-r", "__ns:=/failing_corrector"],
        parameter_overrides=parameters(corrector="grabcut"),
    )
    spinner = Spinner(node)
    probe.listen(DiagnosticArray, "/diagnostics")

    def levels() -> list[tuple[bytes, str]]:
        return [
            (status.level, status.message)
            for message in probe.messages("/diagnostics")
            for status in message.status
            if status.name.startswith("failing_corrector/")
        ]

    try:
        wait_for(levels, "a report")
        assert levels()[0] == (OK, "ok")
        node._corrector = BrokenCorrector()
        probe.call(CorrectMask, "/failing_corrector/correct_mask", request(3))
        wait_for(lambda: levels()[-1][0] == ERROR, "the alarm")
        assert levels()[-1][1].endswith("in the last 10 s: RuntimeError: out of memory")
    finally:
        spinner.close()


def test_the_log_has_one_short_traceback_of_many(
    server: CorrectionNode, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Talkative(BrokenCorrector):
        def refine(self, *_: object, **__: object) -> list[Refinement]:
            raise KeyError("x" * 100_000)

    lines: list[str] = []
    monkeypatch.setattr(server, "_failures", LogLimiter(lines.append))
    monkeypatch.setattr(server, "_corrector", Talkative())
    for _ in range(5):
        response = probe.call(CorrectMask, SERVICE, request(3))
        assert response.message.startswith("KeyError: 'xxx")
        assert len(response.message) < MAX_TEXT + 100
    [line] = lines
    assert line.startswith("Traceback")
    assert len(line) < MAX_TEXT + 100


def test_a_box_and_a_prior_serve_too(server: CorrectionNode, probe: Probe) -> None:
    mask = scene(5)[1]
    rows, columns = np.nonzero(mask)
    box = RegionOfInterest(
        x_offset=int(columns[0]) - 2,
        y_offset=int(rows[0]) - 2,
        width=28,
        height=28,
    )
    boxed = probe.call(CorrectMask, SERVICE, request(5, positive=[], has_box=True, box=box))
    assert boxed.success, boxed.message
    assert iou(read_mask(boxed.masks[0]), mask) > 0.9
    rough = np.roll(mask, 3, axis=1)
    asked = request(5, positive=[], mask=mask_message(rough, header(5)))
    refined = probe.call(CorrectMask, SERVICE, asked)
    assert refined.success, refined.message
    assert iou(read_mask(refined.masks[0]), mask) > iou(rough, mask)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"positive": []}, "prompt"),
        ({"positive": [Point(x=500.0, y=3.0)]}, "(500, 3)"),
        ({"positive": [Point(x=float("nan"), y=3.0)]}, "outside"),
        ({"image": Image()}, "encoding ''"),
        ({"image": Image(encoding="rgb8")}, "empty"),
        ({"mask": mask_message(np.ones((3, 4), bool), header(0))}, "the mask is 4x3"),
        ({"mask": Image(encoding="rgb8", height=1, width=1, step=3, data=[1, 2, 3])}, "label map"),
        ({"has_box": True}, "box"),
    ],
)
def test_nonsense_is_refused_with_the_reason(
    server: CorrectionNode, probe: Probe, fields: dict[str, Any], fault: str
) -> None:
    response = probe.call(CorrectMask, SERVICE, request(**fields))
    assert not response.success
    assert fault in response.message
    assert probe.call(CorrectMask, SERVICE, request()).success  # it serves on


def test_several_prompts_of_one_image_get_a_mask_each(
    server: CorrectionNode, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is of no use costs its own mask alone, and the corrector is called once."""
    asked = request(4)
    outside = Prompt(positive=[Point(x=500.0, y=3.0)])
    broken = Prompt(mask=Image(encoding="rgb8", height=1, width=1, step=3, data=[1, 2, 3]))
    asked.prompts = [asked.prompts[0], outside, broken, Prompt(), asked.prompts[0]]
    response = probe.call(CorrectMask, SERVICE, asked)
    assert not response.success
    assert [bool(fault) for fault in response.faults] == [False, True, True, True, False]
    assert "(500, 3) lies outside" in response.faults[1]
    assert all(fault in response.message for fault in response.faults)
    assert [mask.height > 0 for mask in response.masks] == [True, False, False, False, True]
    for index in (0, 4):
        assert iou(read_mask(response.masks[index]), scene(4)[1]) > 0.9
        assert response.scores[index] > 0
    counting = CountingCorrector()
    monkeypatch.setattr(server, "_corrector", counting)
    asked.prompts = asked.prompts[:1] * 3
    assert probe.call(CorrectMask, SERVICE, asked).success
    assert len(counting.keys) == 1


@pytest.mark.parametrize(
    ("prompts", "prior_ious", "fault"),
    [
        (0, [], "no prompt"),
        (65, [], "at most 64"),
        (2, [0.5], "1 prior_ious for 2 prompts"),
        (1, [1.5], "an overlap from 0 to 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    server: CorrectionNode, probe: Probe, prompts: int, prior_ious: list[float], fault: str
) -> None:
    asked = request(4, prior_ious=prior_ious)
    asked.prompts = asked.prompts * prompts
    response = probe.call(CorrectMask, SERVICE, asked)
    assert not response.success
    assert fault in response.message


def test_an_image_is_decoded_and_keyed_once(
    server: CorrectionNode, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = CountingCorrector()
    monkeypatch.setattr(server, "_corrector", counting)
    for index in (7, 7, 8):
        assert probe.call(CorrectMask, SERVICE, request(index)).success
    first, second, third = counting.keys
    assert first == second != third
    assert counting.images[0] is counting.images[1]
    np.testing.assert_array_equal(counting.images[2], scene(8)[0])
    twin = scene_message(9)
    twin.header = header(8)  # another camera that is triggered with the first
    assert probe.call(CorrectMask, SERVICE, request(image=twin)).success
    assert counting.keys[-1] != third
    np.testing.assert_array_equal(counting.images[-1], scene(9)[0])
    unstamped = scene_message(9)
    unstamped.header.stamp.sec = unstamped.header.stamp.nanosec = 0
    assert probe.call(CorrectMask, SERVICE, request(image=unstamped)).success
    assert counting.keys[-1] is None  # nothing says that two images without a stamp are one


def test_it_reports(server: CorrectionNode, probe: Probe) -> None:
    probe.listen(DiagnosticArray, "/diagnostics")
    probe.call(CorrectMask, SERVICE, request())

    def report() -> dict[str, str]:
        own = [
            status
            for message in probe.messages("/diagnostics")
            for status in message.status
            if status.name == "correction_test/lazyxmem_correction: grabcut"
            and status.hardware_id
            == f"{socket.gethostname()}: cpu"  # what the parameter `auto` has come to
        ]
        return {pair.key: pair.value for pair in own[-1].values} if own else {}

    wait_for(lambda: int(report().get("answered", 0)) > 0, "the report")
    assert int(report()["requests"]) >= int(report()["answered"])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"corrector": "sam_hq", "checkpoint": "/nowhere/sam.pth"}, "/nowhere/sam.pth"),
        ({"corrector": "sam_hq"}, "sam_hq_vit_tiny.pth"),
        ({"corrector": "sam_hq", "device": "tpu"}, "tpu"),
    ],
)
def test_a_corrector_that_cannot_be_made_is_named(
    ros: None,
    values: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.setenv("LAZYXMEM_WEIGHTS", str(tmp_path_factory.mktemp("empty")))
    if "device" in values:
        broken = tmp_path_factory.mktemp("weights") / "sam.pth"
        broken.write_bytes(b"")
        values = {**values, "checkpoint": str(broken)}
    with pytest.raises(NodeStartError) as caught:
        CorrectionNode(parameter_overrides=parameters(**values))
    assert reason in str(caught.value)


def test_masks_that_there_is_no_room_for_are_answered(
    server: CorrectionNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for those of many objects; nothing half made goes out."""
    made = iter([mask_message(np.ones((2, 2), bool), header(0))])

    def make(*_: Any) -> Image:
        found = next(made, None)
        if found is None:
            raise MemoryError
        return found

    monkeypatch.setattr(server, "_corrector", CountingCorrector())
    monkeypatch.setattr(corrector, "mask_message", make)
    prompt = Prompt(positive=[Point(x=3.0, y=3.0)])
    request = CorrectMask.Request(image=scene_message(0), prompts=[prompt, prompt])
    response = server._correct(request, CorrectMask.Response())
    assert (response.success, "MemoryError" in response.message) == (False, True)
    assert (list(response.faults), list(response.masks), list(response.scores)) == ([], [], [])
