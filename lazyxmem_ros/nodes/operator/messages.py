# SPDX-License-Identifier: Apache-2.0
"""What the page and the server say to each other; docs/operator.md explains it to people.

Every message is JSON with a `type`. One with bytes (a picture, a mask) is a binary frame of the
WebSocket: the length of the JSON as a little-endian uint32, the JSON, then the bytes. Stamps are
decimal texts of nanoseconds: JavaScript's numbers cannot hold them.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, TypeAlias

import msgspec

from lazyxmem_ros.basics import MAX_LABEL_LENGTH

PROTOCOL = 2
"""Raised with every change that an older page does not understand."""

_LENGTH = struct.Struct("<I")
MAX_POINTS = 200
MAX_OBJECTS = 64

Stamp: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,19}$")]
"""Nanoseconds since the epoch."""
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=40)]
Label: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_LABEL_LENGTH)]
Key: TypeAlias = Annotated[str, msgspec.Meta(max_length=300)]
Session: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16,64}$")]
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
ObjectId: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Coordinate: TypeAlias = Annotated[float, msgspec.Meta(ge=-0.5, le=1e6)]
Point: TypeAlias = tuple[Coordinate, Coordinate]
Points: TypeAlias = Annotated[list[Point], msgspec.Meta(max_length=MAX_POINTS)]
Box: TypeAlias = tuple[Coordinate, Coordinate, Coordinate, Coordinate]
Ids: TypeAlias = Annotated[list[ObjectId], msgspec.Meta(min_length=1, max_length=MAX_OBJECTS)]


class MessageError(ValueError):
    """A message of the page that is none; the text says why."""


class FromPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """A message of the page."""


class Hello(FromPage, frozen=True, tag="hello"):
    """The first message. session: chosen by the page, the same after a lost connection."""

    protocol: int
    session: Session
    name: Name = ""


class Watch(FromPage, frozen=True, tag="watch"):
    """The tracker whose frames are shown; None while the page is out of sight.

    heat: with the map of uncertainty.
    """

    tracker: Key | None
    heat: bool = False


class Shown(FromPage, frozen=True, tag="shown"):
    """The frame of this number has been drawn: the next one may come."""

    number: Number


class OpenRequest(FromPage, frozen=True, tag="open_request"):
    """Send the picture of a request."""

    request: Key


class OpenPast(FromPage, frozen=True, tag="open_past"):
    """Send the frame nearest to a stamp, or the one `step` frames after (before, if negative)."""

    tracker: Key
    stamp: Stamp
    step: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0


class Take(FromPage, frozen=True, tag="take"):
    """This operator begins to answer a request; `hold` false gives it back."""

    request: Key
    hold: bool = True


class Command(FromPage, frozen=True):
    """Something that is done once, and answered by Done, however often it is sent.

    seq: its number in the session.
    """

    seq: Number


class TrackerCommand(Command, frozen=True):
    """A command to one tracker, by its full name."""

    tracker: Key


class Refine(TrackerCommand, frozen=True, tag="refine"):
    """Make a mask of clicks and a box; the bytes are the runs of the mask that they are about.

    Answered by Refined. request: of which it is, or "" for a frame of the past.
    """

    stamp: Stamp
    request: Key = ""
    positive: Points = []
    negative: Points = []
    box: Box | None = None


class Answer(Command, frozen=True, tag="answer"):
    """The answer to a request.

    outcome: "mask" (the bytes are its runs), "not_in_view" or "dismissed". positive, negative,
    box: what the mask was made of.
    """

    request: Key
    outcome: Annotated[str, msgspec.Meta(pattern="^(mask|not_in_view|dismissed)$")]
    positive: Points = []
    negative: Points = []
    box: Box | None = None


class AddObject(TrackerCommand, frozen=True, tag="add_object"):
    """Follow a new object, whose mask on a frame of the past is the bytes."""

    stamp: Stamp
    label: Label = ""


class CorrectObject(TrackerCommand, frozen=True, tag="correct_object"):
    """Show where an object is (the bytes are its mask) on a frame of the past, unasked."""

    stamp: Stamp
    object_id: ObjectId


class RemoveObjects(TrackerCommand, frozen=True, tag="remove_objects"):
    """Forget objects."""

    ids: Ids


class PauseObjects(TrackerCommand, frozen=True, tag="pause_objects"):
    """Let objects rest, or end that."""

    ids: Ids
    pause: bool


class Quiet(TrackerCommand, frozen=True, tag="quiet"):
    """Decline what a tracker asks for so many seconds; 0 ends that."""

    seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)]


class TakeBack(TrackerCommand, frozen=True, tag="take_back"):
    """Undo a correction that the tracker took. answer: the key of what was answered."""

    answer: Key


Incoming: TypeAlias = (
    Hello
    | Watch
    | Shown
    | OpenRequest
    | OpenPast
    | Take
    | Refine
    | Answer
    | AddObject
    | CorrectObject
    | RemoveObjects
    | PauseObjects
    | Quiet
    | TakeBack
)
_DECODER = msgspec.json.Decoder(Incoming)


class ToPage(msgspec.Struct, frozen=True, tag_field="type"):
    """A message of the server."""


class Welcome(ToPage, frozen=True, tag="welcome"):
    """Answers Hello. name: the operator's. quiet_s: how long "ask nothing" is. max_message: bytes
    of a message of the page at most.
    """

    name: str
    quiet_s: float
    max_message: int


class ObjectState(msgspec.Struct, frozen=True):
    """An object on the newest frame; state: tracked, uncertain, lost, paused."""

    id: int
    label: str
    state: str
    uncertainty: float
    predicted_iou: float | None
    colour: str


class RequestState(msgspec.Struct, frozen=True):
    """A request that is open. left_s: time that is left by the images' stamps; None: no limit.

    taken_by: the name of who began to answer; mine: whether that is the receiver.
    """

    key: str
    object_id: int
    label: str
    reason: str
    left_s: float | None
    taken_by: str
    mine: bool


class FinishedRequest(msgspec.Struct, frozen=True):
    """A request, or a correction that nobody asked for, that is done. ago_s: for how long.

    outcome: sent, applied, refused, dismissed, expired, withdrawn, elsewhere, quiet, taken_back.
    detail: the tracker's words. by: the operator's name.
    """

    key: str
    object_id: int
    label: str
    outcome: str
    detail: str
    by: str
    mine: bool
    ago_s: float


class TrackerState(msgspec.Struct, frozen=True):
    """All there is to know of one tracker.

    node: absent, inactive, present. picture: absent, waiting, present. corrector: absent, present.
    fault: why the console cannot show the pictures that come; "" = it can. takes_back: whether the
    tracker can undo corrections. detail: what its diagnostics complain about.
    newest, oldest: stamps of the frames that can be opened; "" where there are none. quiet_s: for
    how long nothing is asked any more.
    """

    tracker: str
    title: str
    node: str
    picture: str
    fault: str
    corrector: str
    takes_back: bool
    detail: str
    newest: str
    oldest: str
    rate: float
    quiet_s: float
    objects: list[ObjectState]
    requests: list[RequestState]
    finished: list[FinishedRequest]


class State(ToPage, frozen=True, tag="state"):
    """The whole state, at every change and at least once a second."""

    trackers: list[TrackerState]


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One point of an object's curve. at: seconds since the tracker's first one."""

    at: float
    object_id: int
    uncertainty: float
    predicted_iou: float | None


class Samples(ToPage, frozen=True, tag="samples"):
    """New points of a tracker's curves; `restart`: the old ones are void."""

    tracker: str
    restart: bool
    samples: list[Sample]


class Picture(ToPage, frozen=True, tag="picture"):
    """A picture: bytes of `parts` lengths: an image (JPEG), label runs, a heat map (JPEG, or none).

    kind: live, past, request. number: of a live one, for Shown. width, height: of image and runs;
    full_width, full_height: of the camera's image, in whose pixels clicks and masks are given.
    ids: the object that each value of the runs, from 1 on, stands for. tracked: whether the
    tracker has seen it.
    """

    kind: str
    number: int
    tracker: str
    stamp: str
    request: str
    width: int
    height: int
    full_width: int
    full_height: int
    ids: list[int]
    tracked: bool
    parts: list[int]


class Refined(ToPage, frozen=True, tag="refined"):
    """Answers Refine; the bytes: the mask's runs. code, detail: why there is none, as in Done."""

    seq: int
    ok: bool
    code: str = ""
    detail: str = ""


class Done(ToPage, frozen=True, tag="done"):
    """Answers a Command. code: what became of it, for the page's texts; detail: ROS's words."""

    seq: int
    ok: bool
    code: str = ""
    detail: str = ""


class Refused(ToPage, frozen=True, tag="refused"):
    """A message that was no command could not be heeded. about: its request, if any."""

    code: str
    detail: str = ""
    about: str = ""


def read_message(data: bytes | str) -> tuple[Incoming, bytes]:
    """A message of the page and its bytes; raises MessageError."""
    text, payload = data, b""
    if isinstance(data, bytes):
        text, payload = _split(data)
    try:
        return _DECODER.decode(text), payload
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MessageError(str(error)) from error


def refused_command(data: bytes | str, why: str) -> bytes | str | None:
    """What tells the page, which waits for it, that a command that cannot be read is not done; None
    for what has no number.
    """
    try:
        text = _split(data)[0] if isinstance(data, bytes) else data
        found = msgspec.json.decode(text)
    except (MessageError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    seq = found.get("seq") if isinstance(found, dict) else None
    if type(seq) is not int:
        return None
    if found.get("type") == "refine":
        return write_message(Refined(seq, False, "malformed", why))
    return write_text(Done(seq, False, "malformed", why))


def _split(data: bytes) -> tuple[bytes, bytes]:
    if len(data) < _LENGTH.size:
        raise MessageError(f"a binary message of {len(data)} bytes has no length")
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    if end > len(data):
        raise MessageError(f"a binary message of {len(data)} bytes says that its text has {length}")
    return data[_LENGTH.size : end], data[end:]


def write_message(message: ToPage, *parts: bytes) -> bytes:
    """A message with its bytes as one binary frame."""
    text = msgspec.json.encode(message)
    return b"".join((_LENGTH.pack(len(text)), text, *parts))


def write_text(message: ToPage) -> str:
    """A message without bytes; what is not finite becomes null."""
    return msgspec.json.encode(message).decode()


def fields_of(message: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    """(name, type) of a message's fields, for its documentation."""
    return [(field.name, field.type) for field in msgspec.structs.fields(message)]
