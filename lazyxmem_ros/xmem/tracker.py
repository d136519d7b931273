# SPDX-License-Identifier: Apache-2.0
"""Video object segmentation a frame at a time: `segment` opens a frame, one call closes it."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.xmem.device import autocast, resolve_device, resolve_precision
from lazyxmem_ros.xmem.errors import FrameError, MaskError, UnknownObjectError
from lazyxmem_ros.xmem.folding import fold_batch_norm
from lazyxmem_ros.xmem.inputs import Inputs, check_masks, image_size, outputs
from lazyxmem_ros.xmem.memory import Memory, MemoryConfig, MemoryState
from lazyxmem_ros.xmem.network import STRIDE, KeyFeatures, XMem, aggregate
from lazyxmem_ros.xmem.storage import lasting_copies


class Closing(enum.Enum):
    """How a frame was closed."""

    MEMORIZED = "memorized"
    HELD = "held"
    CORRECTED = "corrected"


@dataclass
class Frame:
    """One image on its way through the tracker, and what a later correction of it needs."""

    index: int
    """Counts the images since the start or the last reset."""
    stamp: int
    """Nanoseconds since the epoch, as given to `segment`."""
    size: tuple[int, int]
    """Height and width of the image as given, pixels."""
    object_ids: tuple[int, ...]
    """The objects, in the order of `probabilities`."""
    image: Tensor
    """Normalised, scaled and padded image [1, 3, H', W']."""
    features: KeyFeatures | None
    """The key encoder's features; None while there has been nothing to track, and when they were
    let go: what needs them computes them again."""
    distribution: Tensor
    """Probabilities [K + 1, H', W'] at the padded internal size."""
    hidden: dict[int, Tensor]
    """Hidden state [C_h, h, w] of each object after this frame's decoding; a deep update when it
    enters memory is the tracker's."""
    clock: int
    """The memory clock's reading that this frame has if it is not held."""
    deep_update: bool
    """Whether the frame is due for a deep update of the hidden state."""
    inner_size: tuple[int, int]
    """Height and width of the scaled image, without its padding."""
    given: dict[int, Tensor] = field(default_factory=dict)
    """Masks given on this frame, float [H', W'] in 0..1."""
    closing: Closing | None = None
    """How it was closed; None while it is open."""
    _probabilities: Tensor | None = None
    _settled: tuple[Tensor, ...] = ()  # what lies in memory for what stays

    @property
    def open(self) -> bool:
        """Not yet memorized, held or corrected."""
        return self.closing is None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that it keeps for corrections."""
        return sum(t.nbytes for t in self._kept())

    @property
    def made_bytes(self) -> int:
        """Of these, bytes of what is made anew when it is gone through again."""
        return self.distribution.nbytes + sum(h.nbytes for h in self.hidden.values())

    def _kept(self) -> Iterator[Tensor]:
        yield from (self.image, *(self.features or ()), self.distribution)
        yield from self.given.values()
        yield from self.hidden.values()

    @property
    def probabilities(self) -> Tensor:
        """Float tensor [K + 1, H, W] on the device: background, then the objects in order."""
        if self._probabilities is None:
            self._probabilities = self.at_output_size(self.distribution)
        return self._probabilities

    def copy(self) -> Frame:
        """The same frame, with a life of its own; tensors are shared, nothing writes into them."""
        return replace(self, hidden=dict(self.hidden), given=dict(self.given))

    def settle(self) -> None:
        """Move what is kept to memory for what stays (see `storage`); all values stay the same.

        What is replaced later moves with the next call. On a GPU nothing needs to move. What
        `probabilities` computed at the image's size is let go; they can be had again.
        """
        self._probabilities = None
        if self.image.device.type != "cpu":
            return
        settled = {id(t) for t in self._settled}
        moving = [t for t in self._kept() if id(t) not in settled]
        moved = dict(zip(map(id, moving), lasting_copies(moving), strict=True))
        self.image = moved.get(id(self.image), self.image)
        if self.features is not None:
            self.features = KeyFeatures(*(moved.get(id(t), t) for t in self.features))
        if id(self.distribution) in moved:
            self.set_distribution(moved[id(self.distribution)])
        self.hidden = {i: moved.get(id(t), t) for i, t in self.hidden.items()}
        self.given = {i: moved.get(id(t), t) for i, t in self.given.items()}
        self._settled = tuple(self._kept())

    def release_features(self) -> None:
        """Let the key encoder's features go, which are most of what is kept; see `features`."""
        self.features = None
        self._settled = ()  # they share their pages with what stays
        self.settle()

    def labels(self) -> NDArray[np.uint16]:
        """Label map [H, W]: the most probable object's id, 0 for background."""
        ids = torch.tensor([0, *self.object_ids], device=self.distribution.device)
        return ids[self.probabilities.max(0).indices].cpu().numpy().astype(np.uint16)

    def at_output_size(self, distribution: Tensor) -> Tensor:
        """[K, H', W'] -> [K, H, W]."""
        return outputs(distribution, self.inner_size, self.size)

    def set_distribution(self, distribution: Tensor) -> None:
        """Replace the probabilities [K + 1, H', W']."""
        self.distribution = distribution
        self._probabilities = None


WRONG_IOU = 0.5
"""IoU with a person's mask below which a prediction was of something else."""


@dataclass(frozen=True)
class TrackerState:
    """A copy of all that a tracker remembers, between two frames or while one is open."""

    size: tuple[int, int] | None
    tokens: tuple[int, int] | None
    """Height and width of a frame in memory tokens."""
    memory: MemoryState | None
    births: dict[int, int]
    hidden: dict[int, Tensor]
    frame: Frame | None
    """A copy of the frame that was open, if one was."""
    frames: int
    clock: int
    last_memory: int
    last_deep_update: int

    @property
    def nbytes(self) -> int:
        """Bytes of the copy."""
        hidden = sum(h.nbytes for h in self.hidden.values())
        return hidden + (self.memory.nbytes if self.memory else 0)


class XMemTracker:
    """Follows any number of objects through a video (XMem, section 3).

    A frame's life: `segment` opens it; `add_objects` may give masks of new or known objects on
    it; `memorize`, `hold` or `correct` closes it. The tracker's own state (memory, hidden state,
    clocks) changes only when a frame is closed, or when objects are added and removed.

    One thread may use a tracker at a time.
    """

    def __init__(
        self,
        network: XMem,
        config: MemoryConfig | None = None,
        *,
        device: str | torch.device = "cpu",
        max_internal_size: int = 0,
        precision: str = "float32",
    ) -> None:
        """`max_internal_size`: longest allowed short side inside, pixels; 0: no limit.

        `precision`: what the convolutions compute in, a name of `resolve_precision`; memory is
        kept and read in float32 always.
        """
        self.device = resolve_device(device)
        self._inputs = Inputs(self.device, max_internal_size)
        self.network = fold_batch_norm(network.eval()).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = config or MemoryConfig()
        self.max_internal_size = max_internal_size
        self.precision = resolve_precision(precision, self.device)
        self.reset()

    def reset(self) -> None:
        """Forget every object, the memory and the image size."""
        self._memory: Memory | None = None
        self._tokens: tuple[int, int] | None = None
        self._size: tuple[int, int] | None = None
        self._hidden: dict[int, Tensor] = {}
        self._births: dict[int, int] = {}
        self._frames = 0
        self._frame: Frame | None = None
        self._clock = -1
        self._last_memory = -self.config.memory_every
        self._last_deep_update = -max(self.config.deep_update_every, 0)

    # ---- what it holds

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects followed, in the order in which they were added."""
        return tuple(self._births)

    @property
    def frame(self) -> Frame | None:
        """The newest frame."""
        return self._frame

    @property
    def memory_tokens(self) -> tuple[int, int]:
        """Tokens in working and in long-term memory."""
        if self._memory is None:
            return 0, 0
        return self._memory.working_tokens, self._memory.long_term_tokens

    @property
    def nbytes(self) -> int:
        """Bytes held by the memory and the hidden states."""
        hidden = sum(h.nbytes for h in self._hidden.values())
        return hidden + (self._memory.nbytes if self._memory else 0)

    # ---- a frame's life

    @torch.inference_mode()
    def segment(
        self,
        image: NDArray[np.uint8],
        masks: Mapping[int, BoolMask] | None = None,
        *,
        stamp: int = 0,
    ) -> Frame:
        """Open the next frame: RGB uint8 [H, W, 3], with the masks of objects known on it.

        `masks` {id: bool [H, W]} adds new objects and sets known ones. Raises `FrameError` (not
        an image, another size than before, the frame before still open), `MaskError`.
        """
        size = self._check_size(image)
        if self._frame is not None and self._frame.open:
            raise FrameError(
                f"frame {self._frame.index} is still open: memorize, hold or correct it first"
            )
        given = self._take_masks(masks or {}, size)
        padded, inner = self._inputs.image(image)
        clock = self._clock + 1
        frame = Frame(
            index=self._frames,
            stamp=stamp,
            size=size,
            object_ids=self.object_ids,
            image=padded,
            features=None,
            distribution=padded.new_ones(1, *padded.shape[-2:]),
            hidden=dict(self._hidden),
            clock=clock,
            deep_update=self._deep_update_due(clock, given=bool(given)),
            inner_size=inner,
        )
        with self._or_nothing():
            self._size = size
            self._frames += 1
            self._frame = frame
            self._open(frame, given)
        return frame

    @torch.inference_mode()
    def add_objects(self, frame: Frame, masks: Mapping[int, BoolMask]) -> None:
        """Give masks {id: bool [H, W]} of new or known objects on the newest frame.

        The frame enters memory: when it is closed, or, if it was closed before, at once.
        Raises `FrameError` (not the newest frame), `MaskError`.
        """
        if frame is not self._frame:
            raise FrameError(f"frame {frame.index} is not the newest one")
        given = self._take_masks(masks, frame.size)
        if not given:
            return
        with self._or_nothing():
            if frame.open:
                frame.deep_update = self._deep_update_due(frame.clock, given=True)
            self._give(frame, given)
            if not frame.open:
                self._enter(frame, deep_update=True)

    @torch.inference_mode()
    def memorize(self, frame: Frame, masks: Mapping[int, BoolMask] | None = None) -> None:
        """Close the frame: it enters working memory if it is due or has given masks.

        `masks` {id: bool [H, W]} replace the prediction of the objects that they name first.
        """
        self._check_open(frame)
        if masks:
            self._overlay(frame, self._take_masks(masks, frame.size, known_only=True))
        self._hidden.update(frame.hidden)
        self._clock = frame.clock
        if self._births and (frame.given or masks or self._memory_due(frame.clock)):
            self._enter(frame, deep_update=frame.deep_update)
        frame.closing = Closing.MEMORIZED

    @torch.inference_mode()
    def hold(self, frame: Frame) -> None:
        """Close the frame without a trace in memory: the memory clock does not see it.

        The decoder's renewed hidden state is kept. A frame with given masks cannot be held.
        """
        self._check_open(frame)
        if frame.given:
            raise FrameError(f"frame {frame.index} has given masks: memorize it")
        self._hidden.update(frame.hidden)
        frame.closing = Closing.HELD

    @torch.inference_mode()
    def correct(
        self,
        frame: Frame,
        masks: Mapping[int, BoolMask],
        *,
        told: Collection[int] = (),
        doubted_since: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """Close the newest frame with corrected masks {id: bool [H, W]} of known objects.

        It enters working memory with a deep update on top of the decoder's renewal, and the
        memory clock restarts there (Lazy-XMem's interaction-driven update). The other objects
        keep their prediction where the corrected ones are not. `frame.probabilities` follow.
        `told`: those whose correction is a person's; the frame stays in memory for their sake.
        `doubted_since`: object id -> index of the last frame that was right, as far as is known:
        what memory learnt between the two is dropped, and where the mask turns out to have been of
        something else, all that working memory learnt but from a person, and the object's hidden
        state, which followed that something.
        """
        if frame is not self._frame:
            raise FrameError(f"frame {frame.index} is not the newest one")
        corrected = self._take_masks(masks, frame.size, known_only=True)
        if not corrected:
            raise MaskError("a correction needs the mask of at least one object")
        wrong = [i for i in doubted_since if self._wrong(frame, i, corrected[i])]
        self._overlay(frame, corrected)
        for object_id in frame.hidden.keys() & wrong:
            frame.hidden[object_id] = torch.zeros_like(frame.hidden[object_id])
        if frame.open:
            self._hidden.update(frame.hidden)
            self._clock = frame.clock
        self._enter(frame, deep_update=True, told=told)
        frame.closing = Closing.CORRECTED
        assert self._memory is not None
        for object_id, since in doubted_since.items():
            self._memory.unlearn(object_id, since, frame.index)
        if wrong:
            self._memory.unlearn_working(frame.index)

    @torch.inference_mode()
    def preview(self, frame: Frame, masks: Mapping[int, BoolMask]) -> Tensor:
        """What `frame.probabilities` would be with these masks; changes nothing."""
        checked = self._take_masks(masks, frame.size, known_only=True)
        return frame.at_output_size(self._with_masks(frame, checked))

    @torch.inference_mode()
    def remove_objects(self, object_ids: Iterable[int]) -> None:
        """Forget objects and free their memory. Raises `UnknownObjectError`, changing nothing."""
        ids = list(dict.fromkeys(object_ids))
        self._check_known(ids)
        self._forget(ids)
        frame = self._frame
        if frame is not None and ids:
            keep = [n for n, i in enumerate(frame.object_ids) if i not in ids]
            objects = frame.distribution[1:][keep]
            frame.object_ids = tuple(i for i in frame.object_ids if i not in ids)
            # What the removed objects had of a pixel goes to the background.
            frame.set_distribution(torch.cat([1 - objects.sum(0, keepdim=True), objects]))
            for object_id in ids:
                frame.hidden.pop(object_id, None)
                frame.given.pop(object_id, None)

    # ---- going back in time

    def state(self) -> TrackerState:
        """A copy of memory, hidden states, clocks and, if there is one, the open frame."""
        frame = self._frame
        return TrackerState(
            size=self._size,
            tokens=self._tokens,
            memory=self._memory.state() if self._memory else None,
            births=dict(self._births),
            hidden=dict(self._hidden),  # tensors are replaced, never written into
            frame=frame.copy() if frame is not None and frame.open else None,
            frames=self._frames,
            clock=self._clock,
            last_memory=self._last_memory,
            last_deep_update=self._last_deep_update,
        )

    @torch.inference_mode()
    def restore(self, state: TrackerState) -> None:
        """Remember what the state holds; the frame that was open then is open again."""
        self.reset()
        self._size, self._births = state.size, dict(state.births)
        self._hidden = {i: h.to(self.device) for i, h in state.hidden.items()}
        self._frames, self._clock = state.frames, state.clock
        self._last_memory, self._last_deep_update = state.last_memory, state.last_deep_update
        if state.memory is not None:
            assert state.tokens is not None
            self._memory = self._make_memory(state.tokens)
            self._memory.restore(state.memory)
        self._frame = state.frame.copy() if state.frame else None

    def fork(self, state: TrackerState) -> XMemTracker:
        """Another tracker with the same network and settings that remembers the state."""
        other = XMemTracker(
            self.network,
            self.config,
            device=self.device,
            max_internal_size=self.max_internal_size,
            precision=str(self.precision).removeprefix("torch."),
        )
        other.restore(state)
        return other

    def adopt(self, other: XMemTracker) -> None:
        """Take over what a fork remembers, without a copy; the fork is not to be used after."""
        for name in (
            *("_memory", "_tokens", "_size", "_hidden", "_births", "_frames", "_frame"),
            *("_clock", "_last_memory", "_last_deep_update"),
        ):
            setattr(self, name, getattr(other, name))

    @torch.inference_mode()
    def resegment(self, past: Frame) -> Frame:
        """Open a past frame anew: its cached features, this tracker's memory and objects.

        Masks that were given on it are given again. `past` itself stays as it is.
        """
        given = dict(past.given)
        frame = replace(
            past,
            object_ids=self.object_ids,
            distribution=past.image.new_ones(1, *past.image.shape[-2:]),
            hidden=dict(self._hidden),
            clock=self._clock + 1,
            deep_update=self._deep_update_due(self._clock + 1, given=bool(given)),
            given={},
            closing=None,
            _probabilities=None,
        )
        self._frames = frame.index + 1
        self._frame = frame
        self._open(frame, given)
        return frame

    def skip(self, frames: int) -> None:
        """Let so many frames pass unseen: the memory clock goes on, and the hidden states, which
        are those of a frame long ago, begin anew.
        """
        if frames:
            self._clock += frames
            self._hidden = {i: torch.zeros_like(h) for i, h in self._hidden.items()}

    def recall(self, frame: Frame, before: Frame) -> None:
        """Let the prediction of the open frame be one that was made of its image before, of the
        same objects.
        """
        self._check_open(frame)
        frame.set_distribution(before.distribution)
        frame.hidden = dict(before.hidden)

    def _forget(self, object_ids: Iterable[int]) -> None:
        """All of known objects but what the newest frame shows of them."""
        for object_id in object_ids:
            del self._births[object_id]
            self._hidden.pop(object_id, None)
            if self._memory is not None and object_id in self._memory.object_ids:
                self._memory.remove_object(object_id)
        if not self._births:
            self._memory = self._tokens = None  # the next image may have another size

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """What fails on the way (the device's memory may be full) leaves the objects and the newest
        frame as they were.
        """
        newest, frames, size, known = self._frame, self._frames, self._size, set(self._births)
        before = newest.copy() if newest else None
        try:
            yield
        except BaseException:
            self._forget(self._births.keys() - known)
            self._frame, self._frames, self._size = newest, frames, size
            if newest is not None:
                vars(newest).update(vars(before))
            raise

    # ---- when

    def _memory_due(self, clock: int) -> bool:
        return clock - self._last_memory >= self.config.memory_every

    def _deep_update_due(self, clock: int, *, given: bool) -> bool:
        if self.config.deep_update_every < 0:
            return given or self._memory_due(clock)
        return clock - self._last_deep_update >= self.config.deep_update_every

    # ---- how

    def _open(self, frame: Frame, given: Mapping[int, Tensor]) -> None:
        if self._births:
            self._predict(frame, decode=not set(self._births) <= set(given))
        if given:
            self._give(frame, given)

    def _predict(self, frame: Frame, *, decode: bool) -> None:
        """Read memory and decode the objects' masks and hidden states."""
        self._encode(frame)
        if not decode:
            frame.set_distribution(frame.distribution.new_zeros(len(frame.object_ids) + 1, 1, 1))
            return
        assert frame.features is not None
        assert self._memory is not None
        query = _tokens(frame.features.key[0])
        readout = self._memory.read(query, _tokens(frame.features.selection[0]))
        h, w = frame.features.key.shape[-2:]
        readout = readout.transpose(1, 2).unflatten(2, (h, w))[None]
        synchronous = self.config.deep_update_every < 0
        with autocast(self.device, self.precision):
            logits, hidden = self.network.decode(
                frame.features,
                readout,
                self._stack_hidden(frame),
                update_hidden=not (synchronous and frame.deep_update),
            )
        frame.set_distribution(aggregate(torch.sigmoid(logits[0].float())))
        frame.hidden |= self._unstack_hidden(frame, hidden)

    def _give(self, frame: Frame, given: Mapping[int, Tensor]) -> None:
        """Add the objects that are new and set the given masks."""
        self._encode(frame)
        assert frame.features is not None
        h, w = frame.features.key.shape[-2:]
        if self._memory is None:
            self._memory = self._make_memory((h, w))
        for object_id in given:
            if object_id not in self._births:
                self._births[object_id] = frame.index
                self._memory.add_object(object_id, birth=frame.index)
                if self.network.config.hidden_dim:
                    frame.hidden[object_id] = frame.image.new_zeros(
                        self.network.config.hidden_dim, h, w
                    )
        self._overlay(frame, given)
        frame.given.update(given)

    def _make_memory(self, tokens: tuple[int, int]) -> Memory:
        self._tokens = tokens
        return Memory(
            self.config,
            tokens_per_frame=tokens[0] * tokens[1],
            key_dim=self.network.config.key_dim,
            value_dim=self.network.config.value_dim,
            device=self.device,
        )

    def _enter(self, frame: Frame, *, deep_update: bool, told: Collection[int] = ()) -> None:
        """The frame's values enter working memory; the memory clock restarts there.

        It stays for the sake of the objects that a person `told` of, or gave a mask of after their
        first frame.
        """
        self._encode(frame)
        assert frame.features is not None
        assert self._memory is not None
        with autocast(self.device, self.precision):
            value, hidden = self.network.encode_value(
                frame.image,
                frame.features.f16,
                frame.distribution[None, 1:],
                self._stack_hidden(frame),
                deep_update=deep_update,
            )
        self._memory.write(
            frame.index,
            key=_tokens(frame.features.key[0]),
            shrinkage=frame.features.shrinkage.flatten(),
            selection=_tokens(frame.features.selection[0]),
            values={i: _tokens(v) for i, v in zip(frame.object_ids, value[0].float(), strict=True)},
            shows=self._shown(frame),
            told={*told, *(i for i in frame.given if self._births[i] != frame.index)},
        )
        self._last_memory = self._clock
        if deep_update:
            # The frame keeps the decoder's: entering once more starts from there.
            self._hidden |= frame.hidden | self._unstack_hidden(frame, hidden)
            self._last_deep_update = self._clock

    def _wrong(self, frame: Frame, object_id: int, mask: Tensor) -> bool:
        """Whether a frame's prediction of an object is another than the mask [H', W']."""
        position = frame.object_ids.index(object_id) + 1
        predicted, truth = frame.distribution.argmax(0) == position, mask > 0.5
        both, either = (predicted & truth).sum(), (predicted | truth).sum()
        return bool(both < WRONG_IOU * either)

    def _shown(self, frame: Frame) -> Tensor:
        """The id of the object that each memory token [hw] shows, 0 for background."""
        share = F.avg_pool2d(frame.distribution[None], STRIDE)[0]
        ids = torch.tensor([0, *frame.object_ids], device=self.device)
        return ids[share.max(0).indices].flatten()

    def _encode(self, frame: Frame) -> None:
        if frame.features is None:
            with autocast(self.device, self.precision):
                features = self.network.encode_key(frame.image)
            frame.features = KeyFeatures(
                features.key.float(),
                features.shrinkage.float(),
                features.selection.float(),
                *features[3:],
            )

    def _overlay(self, frame: Frame, masks: Mapping[int, Tensor]) -> None:
        frame.set_distribution(self._with_masks(frame, masks))
        frame.object_ids = self.object_ids

    def _with_masks(self, frame: Frame, masks: Mapping[int, Tensor]) -> Tensor:
        """The distribution [K + 1, H', W'] with masks of some of its objects, or of new ones.

        Where a mask covers a pixel the other objects' predictions are zero; elsewhere they stay.
        """
        covered = torch.stack(list(masks.values())).sum(0) > 0.5
        before = dict(zip(frame.object_ids, frame.distribution[1:], strict=True))
        ids = dict.fromkeys((*frame.object_ids, *masks))
        objects = [
            masks[i] if i in masks else before[i].expand_as(covered).masked_fill(covered, 0)
            for i in ids
        ]
        return aggregate(torch.stack(objects))

    def _stack_hidden(self, frame: Frame) -> Tensor | None:
        """Hidden states [1, K, C_h, h, w] in the order of the frame's objects."""
        if not self.network.config.hidden_dim:
            return None
        return torch.stack([frame.hidden[i] for i in frame.object_ids])[None]

    def _unstack_hidden(self, frame: Frame, hidden: Tensor | None) -> dict[int, Tensor]:
        """Hidden state [C_h, h, w] of each of the frame's objects, from [1, K, C_h, h, w]."""
        if hidden is None:
            return {}
        return dict(zip(frame.object_ids, hidden[0].float(), strict=True))

    # ---- checks, all of them before anything changes

    def _check_size(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """The image's size, which may change only while there is no object."""
        height, width = image_size(image)
        if self._births and self._size not in (None, (height, width)):
            assert self._size is not None
            raise FrameError(
                f"the image is {width}x{height} pixels, the ones before were "
                f"{self._size[1]}x{self._size[0]}: reset the tracker to change the size"
            )
        return height, width

    def _take_masks(
        self,
        masks: Mapping[int, BoolMask],
        size: tuple[int, int],
        *,
        known_only: bool = False,
    ) -> dict[int, Tensor]:
        """Check masks {id: bool [H, W]} and bring them in: {id: float [H', W']}."""
        if known_only:
            self._check_known(masks)
        check_masks(masks, size, known=self._births)
        return {i: self._inputs.mask(m) for i, m in masks.items()}

    def _check_known(self, object_ids: Iterable[int]) -> None:
        unknown = [i for i in object_ids if i not in self._births]
        if unknown:
            raise UnknownObjectError(
                f"no object {', '.join(map(str, unknown))} is tracked; "
                f"there is {', '.join(map(str, self._births)) or 'none'}"
            )

    def _check_open(self, frame: Frame) -> None:
        if frame is not self._frame:
            raise FrameError(f"frame {frame.index} is not the newest one")
        if not frame.open:
            raise FrameError(f"frame {frame.index} is closed already")


def _tokens(x: Tensor) -> Tensor:
    """[C, h, w] -> [h*w, C]."""
    return x.flatten(1).T
