# SPDX-License-Identifier: Apache-2.0
"""Video object segmentation a frame at a time: `segment` opens a frame, one call closes it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.xmem.device import resolve_device, resolve_precision
from lazyxmem_ros.xmem.errors import FrameError, MaskError
from lazyxmem_ros.xmem.folding import fold_batch_norm, on_device
from lazyxmem_ros.xmem.frame import Frame
from lazyxmem_ros.xmem.gating import gate, place_of
from lazyxmem_ros.xmem.inference import Inference, as_tokens
from lazyxmem_ros.xmem.inputs import Inputs, check_known, checked_masks, image_size, tensor_of
from lazyxmem_ros.xmem.memory import Memory
from lazyxmem_ros.xmem.memory_config import MemoryConfig
from lazyxmem_ros.xmem.network import XMem, aggregate
from lazyxmem_ros.xmem.state import Now, TrackerState


class XMemTracker:
    """Follows any number of objects through a video (XMem, section 3).

    A frame's life: `segment` opens it; `add_objects` may give masks of new or known objects on
    it; `memorize`, `hold` or `correct` closes it. The tracker's own state (memory, hidden state,
    clocks) changes only when a frame is closed, or when objects are added and removed.

    Where a call fails on the way, for the device's memory is full, say, objects, hidden states,
    clocks and the newest frame are as they were before it. Memory may hold the frame, or count how
    it was read, already; the same call again does what is left to do.

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
        gate_radius: float = 0.0,
    ) -> None:
        """A tracker without objects.

        Args:
            network: is put into evaluation mode, and where it is on the device its weights are laid
                out for speed; nothing else of it changes, and what is not on the device is copied.
            config: bounds of the memory.
            device: "auto", "cpu", "cuda" or "cuda:N".
            max_internal_size: longest allowed short side inside, pixels; 0: no limit.
            precision: what the convolutions compute in, a name of `resolve_precision`; memory is
                kept and read in float32 always.
            gate_radius: as `LazyConfig.gate_radius`; 0: there are no gates, as XMem was published.

        Raises:
            ValueError: the device is unknown or not here, or the precision is unknown.
        """
        self.device = resolve_device(device)
        self._inputs = Inputs(self.device, max_internal_size)
        self.network = on_device(fold_batch_norm(network.eval()), self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = config or MemoryConfig()
        self.max_internal_size = max_internal_size
        self.precision = resolve_precision(precision, self.device)
        self.gate_radius = gate_radius
        self._inference = Inference(
            self.network, self._inputs, device=self.device, precision=self.precision
        )
        self.reset()

    def reset(self) -> None:
        """Forget every object, the memory and the image size."""
        self._now = Now(
            last_memory=-self.config.memory_every,
            last_deep_update=-max(self.config.deep_update_every, 0),
        )

    # ---- what it holds

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects followed, in the order in which they were added."""
        return tuple(self._now.births)

    @property
    def births(self) -> Mapping[int, int]:
        """Object id -> index of its first frame."""
        return self._now.births

    @property
    def frame(self) -> Frame | None:
        """The newest frame."""
        return self._now.frame

    @property
    def memory_tokens(self) -> tuple[int, int]:
        """Tokens in working and in long-term memory."""
        if self._now.memory is None:
            return 0, 0
        return self._now.memory.working_tokens, self._now.memory.long_term_tokens

    @property
    def compact(self) -> bool:
        """Whether memory is as small as it gets between two consolidations, and so is a copy."""
        return self._now.memory is None or self._now.memory.compact

    @property
    def nbytes(self) -> int:
        """Bytes held by the memory and the hidden states."""
        hidden = sum(h.nbytes for h in self._now.hidden.values())
        return hidden + (self._now.memory.nbytes if self._now.memory else 0)

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
        if self._now.frame is not None and self._now.frame.open:
            raise FrameError(
                f"frame {self._now.frame.index} is still open: memorize, hold or correct it first"
            )
        given = self._take_masks({} if masks is None else masks, size)
        pixels = tensor_of(image)
        padded, inner = self._inputs.image(pixels)
        clock = self._now.clock + 1
        frame = Frame(
            index=self._now.frames,
            stamp=stamp,
            size=size,
            object_ids=self.object_ids,
            image=padded,
            pixels=pixels if pixels.nbytes < padded.nbytes else None,
            features=None,
            distribution=padded.new_ones(1, *padded.shape[-2:]),
            hidden=dict(self._now.hidden),
            places=dict(self._now.places),
            clock=clock,
            deep_update=self._deep_update_due(clock, given=bool(given)),
            inner_size=inner,
        )
        with self._or_nothing():
            self._now.size = size
            self._now.frames += 1
            self._begin(frame)
            self._open(frame, given)
        return frame

    @torch.inference_mode()
    def add_objects(self, frame: Frame, masks: Mapping[int, BoolMask]) -> None:
        """Give masks {id: bool [H, W]} of new or known objects on the newest frame.

        The frame enters memory: when it is closed, or, if it was closed before, at once.
        Raises `FrameError` (not the newest frame), `MaskError`.
        """
        self._check_newest(frame)
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
    def memorize(self, frame: Frame) -> None:
        """Close the frame: it enters working memory if it is due or has given masks.

        Raises `FrameError` (not the newest frame, or closed).
        """
        self._check_open(frame)
        with self._or_nothing():
            self._go_on(frame)
            self._now.clock = frame.clock
            if self._now.births and (frame.given or self._memory_due(frame.clock)):
                self._enter(frame, deep_update=frame.deep_update)
            frame.open = False

    @torch.inference_mode()
    def hold(self, frame: Frame) -> None:
        """Close the frame without a trace in memory: the memory clock does not see it.

        The decoder's renewed hidden state is kept. Raises `FrameError` (not the newest frame,
        closed, or with given masks).
        """
        self._check_open(frame)
        if frame.given:
            raise FrameError(f"frame {frame.index} has given masks: memorize it")
        self._go_on(frame)
        frame.open = False

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

        Raises `FrameError` (not the newest frame), `MaskError`, `UnknownObjectError`.
        """
        self._check_newest(frame)
        corrected = self._take_masks(masks, frame.size, known_only=True)
        if not corrected:
            raise MaskError("a correction needs the mask of at least one object")
        with self._or_nothing():
            wrong = [i for i in doubted_since if frame.is_wrong(i, corrected[i])]
            self._overlay(frame, corrected)
            for object_id in frame.hidden.keys() & wrong:
                frame.hidden[object_id] = torch.zeros_like(frame.hidden[object_id])
            if frame.open:
                self._go_on(frame)
                self._now.clock = frame.clock
            self._enter(frame, deep_update=True, told=told)
            frame.open = False
            assert self._now.memory is not None
            for object_id, since in doubted_since.items():
                self._now.memory.unlearn(object_id, since, frame.index)
            if wrong:
                self._now.memory.unlearn_working(frame.index)

    @torch.inference_mode()
    def preview(self, frame: Frame, masks: Mapping[int, BoolMask]) -> Tensor:
        """What `frame.probabilities` would be with masks {id: bool [H, W]} of known objects.

        Changes nothing. Raises `MaskError`, `UnknownObjectError`.
        """
        checked = self._take_masks(masks, frame.size, known_only=True)
        return frame.at_output_size(frame.with_masks(checked, frame.distribution))

    @torch.inference_mode()
    def remove_objects(self, object_ids: Iterable[int]) -> None:
        """Forget objects and free their memory. Raises `UnknownObjectError`, changing nothing."""
        ids = list(dict.fromkeys(object_ids))
        check_known(ids, known=self._now.births)
        for object_id in ids:
            with self._or_nothing():
                self._forget(object_id)

    # ---- going back in time

    def state(self, *, before: TrackerState | None = None) -> TrackerState:
        """A copy of memory, hidden states, clocks and, if there is one, the open frame. Its memory
        shares what it can with the copy `before`, if one is given.
        """
        now, shared = self._now.copy(), before.memory if before else None
        memory = now.memory.state(shared) if now.memory else None
        frame = now.frame.copy() if now.frame is not None and now.frame.open else None
        return TrackerState(**vars(now) | {"memory": memory, "frame": frame})

    @torch.inference_mode()
    def restore(self, state: TrackerState) -> None:
        """Remember what the state holds; the frame that was open then is open again.

        The state has to fit the tracker; `check_state` looks at one of another origin.
        """
        memory = None
        if state.memory is not None:
            assert state.tokens is not None
            memory = self._make_memory(state.tokens)
            memory.restore(state.memory)
        frame = state.frame.copy() if state.frame else None
        hidden = {i: h.to(self.device) for i, h in state.hidden.items()}
        held = vars(state) | {"memory": memory, "frame": frame, "hidden": hidden}
        self._now = Now(**held).copy()

    def fork(self, state: TrackerState) -> XMemTracker:
        """Another tracker with the same network and settings that remembers the state."""
        other = XMemTracker(
            self.network,
            self.config,
            device=self.device,
            max_internal_size=self.max_internal_size,
            precision=str(self.precision).removeprefix("torch."),
            gate_radius=self.gate_radius,
        )
        other.restore(state)
        return other

    def adopt(self, other: XMemTracker) -> None:
        """Take over what a fork remembers, without a copy; the fork is not to be used after."""
        self._now = other._now

    @torch.inference_mode()
    def resegment(self, past: Frame) -> Frame:
        """Open a past frame anew: its cached features, this tracker's memory and objects.

        The masks with which it was opened are given again. `past` itself stays as it is. This
        tracker has learnt no frame that came after it.
        """
        clock = self._now.clock + 1
        frame = past.reopened(
            self.object_ids,
            hidden=self._now.hidden,
            places=self._now.places,
            clock=clock,
            deep_update=self._deep_update_due(clock, given=bool(past.opening)),
        )
        with self._or_nothing():
            self._now.frames = frame.index + 1
            self._begin(frame)
            self._open(frame, past.opening)
        return frame

    def skip(self, frames: int) -> None:
        """Let so many frames pass unseen: the memory clock goes on, and hidden states and places,
        which are those of a frame long ago, begin anew.
        """
        if frames:
            self.lose_sight()
            self._now.clock += frames

    def lose_sight(self) -> None:
        """Let hidden states and places begin anew, where those of the newest closed frame are of
        long ago.
        """
        self._now.hidden = {i: torch.zeros_like(h) for i, h in self._now.hidden.items()}
        self._now.places = {}

    def recall(self, frame: Frame, before: Frame) -> None:
        """Let the prediction of the open frame be one that was made of its image before, of the
        same objects.
        """
        self._check_open(frame)
        frame.set_distribution(before.distribution)
        frame.hidden, frame.places = dict(before.hidden), dict(before.places)

    def _forget(self, object_id: int) -> None:
        """All of a known object."""
        if self._now.frame is not None:
            self._now.frame.remove_objects([object_id])
        del self._now.births[object_id]
        self._now.hidden.pop(object_id, None)
        self._now.places.pop(object_id, None)
        assert self._now.memory is not None
        self._now.memory.remove_object(object_id)
        if not self._now.births:
            self._now.memory = self._now.tokens = None  # the next image may have another size

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """Within, whatever fails leaves the tracker as it was, memory's tokens excepted.

        These are too many for a copy. So memory is written last, when all that it takes in has been
        computed, and what fails even then leaves it whole (see `Memory.write`).
        """
        before, newest = self._now.copy(), self._now.frame
        shown = vars(newest.copy()) if newest else {}
        try:
            yield
        except BaseException:
            self._now = before
            if newest is not None:
                vars(newest).update(shown)
            if self._now.memory is not None:
                for object_id in set(self._now.memory.object_ids) - self._now.births.keys():
                    self._now.memory.remove_object(object_id)
            raise

    # ---- when

    def _memory_due(self, clock: int) -> bool:
        return clock - self._now.last_memory >= self.config.memory_every

    def _deep_update_due(self, clock: int, *, given: bool) -> bool:
        if self.config.deep_update_every < 0:
            return given or self._memory_due(clock)
        return clock - self._now.last_deep_update >= self.config.deep_update_every

    # ---- how

    def _begin(self, frame: Frame) -> None:
        """It is the newest frame from now on; of the one before nothing more is learnt."""
        if self._now.frame is not None:
            self._now.frame.ungated = None
        self._now.frame = frame

    def _open(self, frame: Frame, given: Mapping[int, Tensor]) -> None:
        frame.opening = dict(given)
        if not self.gate_radius:
            frame.places = {}  # there may have been gates before
        if self._now.births:
            self._predict(frame, decode=not set(self._now.births) <= set(given))
        if given:
            self._give(frame, given)

    def _predict(self, frame: Frame, *, decode: bool) -> None:
        """Read memory and decode the objects' masks and hidden states."""
        features = self._inference.features(frame)
        if not decode:
            frame.set_distribution(frame.distribution.new_zeros(len(frame.object_ids) + 1, 1, 1))
            return
        assert self._now.memory is not None
        readout = self._now.memory.read(
            as_tokens(features.key[0]), as_tokens(features.selection[0])
        )
        synchronous = self.config.deep_update_every < 0
        alone, hidden = self._inference.decode(
            frame, readout, update_hidden=not (synchronous and frame.deep_update)
        )
        gated = found = aggregate(alone)
        if self.gate_radius:
            gated, frame.places = gate(
                found, alone, frame.object_ids, self._now.places, radius=self.gate_radius
            )
        frame.set_distribution(gated, ungated=None if gated is found else found)
        frame.hidden |= hidden

    def _give(self, frame: Frame, given: Mapping[int, Tensor]) -> None:
        """Add the objects that are new and set the given masks."""
        key = self._inference.features(frame).key
        h, w = key.shape[-2:]
        if self._now.memory is None:
            self._now.tokens = h, w
            self._now.memory = self._make_memory(self._now.tokens)
        for object_id in given:
            if object_id not in self._now.births:
                self._now.births[object_id] = frame.index
                self._now.memory.add_object(object_id, birth=frame.index)
                if hidden_dim := self.network.config.hidden_dim:
                    frame.hidden[object_id] = key.new_zeros(hidden_dim, h, w)
        self._overlay(frame, given)
        frame.given.update(given)

    def _make_memory(self, tokens: tuple[int, int]) -> Memory:
        return Memory(
            self.config,
            tokens_per_frame=tokens[0] * tokens[1],
            key_dim=self.network.config.key_dim,
            value_dim=self.network.config.value_dim,
            device=self.device,
        )

    def _go_on(self, frame: Frame) -> None:
        """The next frame follows this one."""
        self._now.hidden.update(frame.hidden)
        self._now.places = dict(frame.places)

    def _enter(self, frame: Frame, *, deep_update: bool, told: Collection[int] = ()) -> None:
        """The frame's values enter working memory; the memory clock restarts there.

        What was found outside of the gates enters as it was found: a rival that memory knows as
        background is not seen any more, until it meets the object and is taken for it.

        It stays for the sake of the objects that a person `told` of, or gave a mask of after their
        first frame.
        """
        features = self._inference.features(frame)
        found = frame.distribution if frame.ungated is None else frame.ungated
        values, hidden = self._inference.encode_values(frame, found, deep_update=deep_update)
        assert self._now.memory is not None
        self._now.memory.write(
            frame.index,
            key=as_tokens(features.key[0]),
            shrinkage=features.shrinkage.flatten(),
            selection=as_tokens(features.selection[0]),
            values=values,
            shows=frame.token_labels(),
            told={*told, *(i for i in frame.given if self._now.births[i] != frame.index)},
        )
        self._now.last_memory = self._now.clock
        if deep_update:
            # The frame keeps the decoder's: entering once more starts from there.
            self._now.hidden |= frame.hidden | hidden
            self._now.places |= frame.places
            self._now.last_deep_update = self._now.clock

    def _overlay(self, frame: Frame, masks: Mapping[int, Tensor]) -> None:
        frame.overlay(masks)
        if self.gate_radius:
            frame.places |= {i: place_of(mask) for i, mask in masks.items()}
        frame.object_ids = self.object_ids

    # ---- checks, all of them before anything changes

    def _check_size(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """The image's size, which may change only while there is no object."""
        height, width = image_size(image)
        if self._now.births and self._now.size not in (None, (height, width)):
            assert self._now.size is not None
            raise FrameError(
                f"the image is {width}x{height} pixels, the ones before were "
                f"{self._now.size[1]}x{self._now.size[0]}: reset the tracker to change the size"
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
            check_known(masks, known=self._now.births)
        checked = checked_masks(masks, size, known=self._now.births)
        return {i: self._inputs.mask(m) for i, m in checked.items()}

    def _check_newest(self, frame: Frame) -> None:
        if frame is not self._now.frame:
            raise FrameError(f"frame {frame.index} is not the newest one")

    def _check_open(self, frame: Frame) -> None:
        self._check_newest(frame)
        if not frame.open:
            raise FrameError(f"frame {frame.index} is closed already")
