# SPDX-License-Identifier: Apache-2.0
"""What the page says is read strictly."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

pytest.importorskip("msgspec", reason="needs msgspec (requirements-operator.txt)")

import msgspec

from lazyxmem_ros import msg
from lazyxmem_ros.basics import MAX_LABEL_LENGTH
from lazyxmem_ros.nodes.operator import messages
from lazyxmem_ros.nodes.operator.messages import (
    Answer,
    MessageError,
    Refine,
    ToPage,
    read_message,
    write_message,
    write_text,
)
from lazyxmem_ros.nodes.operator.view import _object_state


def framed(message: object, payload: bytes = b"") -> bytes:
    text = json.dumps(message).encode()
    return struct.pack("<I", len(text)) + text + payload


def test_a_message_with_bytes() -> None:
    sent = {
        "type": "refine",
        "seq": 4,
        "tracker": "/t",
        "stamp": "1700000000000000001",
        "positive": [[1, 2.5]],
        "box": [0, 0, 5, 6],
    }
    message, payload = read_message(framed(sent, b"\1\2"))
    assert isinstance(message, Refine)
    assert (message.stamp, message.positive, message.box) == (
        "1700000000000000001",
        [(1.0, 2.5)],
        (0.0, 0.0, 5.0, 6.0),
    )
    assert payload == b"\1\2"


def test_a_message_without_bytes() -> None:
    text = '{"type": "answer", "seq": 1, "request": "/t|1|2", "outcome": "not_in_view"}'
    assert read_message(text) == (Answer(1, "/t|1|2", "not_in_view"), b"")


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "[]",
        "null",
        '{"type": "unheard_of"}',
        '{"number": 1}',
        '{"type": "shown"}',
        '{"type": "shown", "number": -1}',
        '{"type": "shown", "number": 1.5}',
        '{"type": "shown", "number": 99999999999999999999}',
        '{"type": "shown", "number": 1, "more": 2}',
        '{"type": "hello", "protocol": 1, "session": "../../etc/passwd"}',
        '{"type": "hello", "protocol": 1, "session": "0123456789abcdef", "name": "%s"}'
        % ("x" * 41),
        '{"type": "open_past", "tracker": "/t", "stamp": "-5"}',
        '{"type": "open_past", "tracker": "/t", "stamp": 5}',
        '{"type": "refine", "seq": 1, "tracker": "/t", "stamp": "1", "positive": [[NaN, 1]]}',
        '{"type": "refine", "seq": 1, "tracker": "/t", "stamp": "1", "positive": [[1]]}',
        '{"type": "remove_objects", "seq": 1, "tracker": "/t", "ids": []}',
        '{"type": "remove_objects", "seq": 1, "tracker": "/t", "ids": [70000]}',
        '{"type": "quiet", "seq": 1, "tracker": "/t", "seconds": 1e9}',
        '{"type": "answer", "seq": 1, "request": "r", "outcome": "shutdown"}',
        "[" * 100_000,
        b"",
        b"\1\0",
        b"\xff\xff\xff\xff{}",
        struct.pack("<I", 2) + b"\xff\xfe",
    ],
)
def test_malformed_messages_are_refused(data: bytes | str) -> None:
    with pytest.raises(MessageError):
        read_message(data)


def test_too_many_points_are_refused() -> None:
    points = [[1, 1]] * (messages.MAX_POINTS + 1)
    sent = {"type": "refine", "seq": 1, "tracker": "/t", "stamp": "1", "negative": points}
    with pytest.raises(MessageError):
        read_message(json.dumps(sent))


def test_one_limit_of_an_object_s_name_holds_for_page_and_console(root: Path) -> None:
    sent = {"type": "add_object", "seq": 1, "tracker": "/t", "stamp": "1"}
    read_message(json.dumps({**sent, "label": "x" * MAX_LABEL_LENGTH}))
    with pytest.raises(MessageError):
        read_message(json.dumps({**sent, "label": "x" * (MAX_LABEL_LENGTH + 1)}))
    page = root / "lazyxmem_ros" / "nodes" / "operator" / "page" / "index.html"
    assert f'<input id="label" maxlength="{MAX_LABEL_LENGTH}"' in page.read_text()


def test_the_name_of_a_foreign_tracker_s_object_is_cut() -> None:
    track = msg.Track(id=1, label="x" * 10_000)
    assert _object_state(track).label == "x" * MAX_LABEL_LENGTH


def test_the_server_writes_what_browsers_read() -> None:
    """Browsers' JSON knows no NaN."""
    state = messages.ObjectState(1, "cup", "tracked", float("nan"), None, "#ffffff")
    samples = messages.Samples("/t", False, [messages.Sample(1.0, 1, float("inf"), None)])
    assert json.loads(write_text(samples))["samples"] == [[1.0, 1, None, None]]
    assert json.loads(msgspec.json.encode(state))["uncertainty"] is None
    data = write_message(messages.Refined(3, True), b"abc")
    (length,) = struct.unpack_from("<I", data)
    assert json.loads(data[4 : 4 + length])["type"] == "refined"
    assert data[4 + length :] == b"abc"


def test_every_message_is_documented(root: Path) -> None:
    page = (root / "docs" / "operator.md").read_text()
    kinds = [*messages.Incoming.__args__, *ToPage.__subclasses__()]
    assert len(kinds) > 15
    for kind in kinds:
        tag = msgspec.inspect.type_info(kind).tag
        row = next((line for line in page.splitlines() if line.startswith(f"| `{tag}`")), None)
        assert row is not None, f"docs/operator.md lacks the message {tag}"
        for name, _ in messages.fields_of(kind):
            assert f"`{name}`" in row, f"docs/operator.md: {tag} lacks {name}"
