# SPDX-License-Identifier: Apache-2.0
"""Pictures that cannot be made cost themselves alone; without a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

pytest.importorskip("msgspec", reason="needs msgspec (requirements-operator.txt)")

from node_graph import FIRST_STAMP, STEP, WAIT_S, header

from lazyxmem_ros.nodes.conversions import image_message
from lazyxmem_ros.nodes.diagnostics import Counts
from lazyxmem_ros.nodes.operator import gallery as gallery_module
from lazyxmem_ros.nodes.operator.errors import RefusedError
from lazyxmem_ros.nodes.operator.gallery import Gallery, PictureSettings
from lazyxmem_ros.nodes.operator.tracker_link import SeenFrame

SETTINGS = PictureSettings(max_width=64, quality=80, max_rate=1000.0, past_s=10, past_bytes=1 << 20)


def frame(index: int) -> SeenFrame:
    message = image_message(np.zeros((8, 8, 3), np.uint8), "rgb8", header(index))
    data = bytes(serialize_message(message))
    return SeenFrame(FIRST_STAMP + index * STEP, data, Image, None, None)


class Viewer:
    """It is always ready."""

    heat, is_ready, shown = False, True, 0

    def show(self, number: int, picture: bytes) -> None:
        self.shown = number


def test_whatever_keeps_a_picture_from_being_made_the_next_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode = gallery_module.encode_frame

    def fail_at_first(frame: SeenFrame, **settings: int) -> object:
        if frame.stamp == FIRST_STAMP:
            raise RuntimeError("no idea")
        return encode(frame, **settings)

    monkeypatch.setattr(gallery_module, "encode_frame", fail_at_first)
    refuse = Mock()
    faults = []

    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            gallery = Gallery(
                "/tracker",
                SETTINGS,
                pool=pool,
                counts=Counts(),
                find=lambda key: None,
                watch=Mock(),
                refuse=refuse,
            )
            viewer = Viewer()
            gallery.add_viewer(viewer)
            for index, is_done in enumerate((lambda: refuse.called, lambda: viewer.shown == 2)):
                faults.append(gallery.fault)
                gallery.on_frame(frame(index))
                until = asyncio.get_running_loop().time() + WAIT_S
                while not is_done():
                    assert asyncio.get_running_loop().time() < until
                    await asyncio.sleep(0.001)
            assert gallery.fault == ""
            await gallery.close()

    asyncio.run(run())
    refuse.assert_called_once_with("image", "no idea")
    assert faults == ["", "no idea"]


def test_no_more_pixels_than_the_console_s_own_limit() -> None:
    """The tracker has one of the same name."""
    asked = Mock()
    asked.content.image = image_message(np.zeros((8, 8, 3), np.uint8), "rgb8", header(0))
    asked.content.mask = image_message(np.zeros((8, 8), np.uint8), "mono8", header(0))
    asked.content.uncertainty_map = Image()
    refuse = Mock()

    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            gallery = Gallery(
                "/tracker",
                replace(SETTINGS, max_pixels=63),
                pool=pool,
                counts=Counts(),
                find=lambda key: asked,
                watch=Mock(),
                refuse=refuse,
            )
            gallery.add_viewer(Viewer())
            gallery.on_frame(frame(0))
            until = asyncio.get_running_loop().time() + WAIT_S
            while not refuse.called:
                assert asyncio.get_running_loop().time() < until
                await asyncio.sleep(0.001)
            with pytest.raises(RefusedError):
                await gallery.request_picture("key")
            await gallery.close()

    asyncio.run(run())
    for call, kind in zip(refuse.call_args_list, ("image", "correction_request"), strict=True):
        assert call.args[0] == kind
        assert call.args[1].startswith("the console cannot read it: the image claims 8x8 pixels")
        assert call.args[1].endswith("(max_pixels)")


def test_whatever_keeps_a_request_s_picture_from_being_made_the_page_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for it, and opens no other request meanwhile."""
    monkeypatch.setattr(gallery_module, "encode_request", Mock(side_effect=RuntimeError("no idea")))

    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            gallery = Gallery(
                "/tracker",
                SETTINGS,
                pool=pool,
                counts=Counts(),
                find=Mock(),
                watch=Mock(),
                refuse=Mock(),
            )
            with pytest.raises(RefusedError, match="no idea"):
                await gallery.request_picture("key")

    asyncio.run(run())


def test_the_past_is_kept_for_who_comes_back_and_no_longer_than_it_would_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The only page was out of sight for a while; an object was begun on one of the frames."""
    monkeypatch.setattr(gallery_module, "UNWATCH_AFTER_S", 0.01)
    watch = Mock()

    async def run() -> None:
        async def until(is_so: Callable[[], bool]) -> None:
            end = asyncio.get_running_loop().time() + WAIT_S
            while not is_so():
                assert asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.001)

        with ThreadPoolExecutor(1) as pool:
            gallery = Gallery(
                "/tracker",
                replace(SETTINGS, past_s=1.0),
                pool=pool,
                counts=Counts(),
                find=lambda key: None,
                watch=watch,
                refuse=Mock(),
            )
            viewer = Viewer()
            gallery.add_viewer(viewer)
            gallery.on_frame(frame(0))
            await until(lambda: len(gallery.past) == 1)
            gallery.remove_viewer(viewer)
            await until(lambda: watch.call_args.args == (False, False))
            assert gallery.past_frame(str(FIRST_STAMP))
            gallery.add_viewer(viewer)
            await asyncio.sleep(1.5)
            assert gallery.past_frame(str(FIRST_STAMP))
            gallery.remove_viewer(viewer)
            await until(lambda: not gallery.past)
            await gallery.close()

    asyncio.run(run())
