# SPDX-License-Identifier: Apache-2.0
"""SAM-HQ as a corrector (Ke et al., "Segment Anything in High Quality", NeurIPS 2023).

The network is that of the published package `segment-anything-hq`. This module loads it, translates
prompts, and embeds each image only once.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from os import PathLike
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lazyxmem_ros.basics import user_path
from lazyxmem_ros.correction.base import (
    BoolMask,
    CorrectorError,
    Prompt,
    Refinement,
    box_of_mask,
    validate_image,
    validate_prompt,
)
from lazyxmem_ros.correction.gpu_memory import full_memory_explained
from lazyxmem_ros.extras import install_command
from lazyxmem_ros.xmem.checkpoint import CheckpointError, check_values, unreadable
from lazyxmem_ros.xmem.device import resolve_device

MODEL_TYPES = ("vit_tiny", "vit_b", "vit_l", "vit_h")
SIZE_OPTION = "model_type; --corrector-model on the command line"
"""What says the size."""

_PRIOR_LOGIT = 8.0
"""Logit given to the prior's pixels (and its negative elsewhere): a probability of 0.9997."""
_MASK_INPUT_SIDE = 256
"""Side in pixels of SAM's mask input, which stands for the padded square image."""
_SHOWN_ENTRIES = 4
"""Entries of a checkpoint that an error message names."""

_Embedding = tuple[Any, Any, tuple[int, int], tuple[int, ...]]


class SamHqCorrector:
    """Segments with SAM-HQ from clicks, a box or a prior mask.

    SAM-HQ predicts several masks for a prompt, of which the one with the highest predicted IoU is
    taken; that IoU is the score. A prompt that is only a prior mask gives SAM the mask's box, too.

    An image is embedded once per `image_key`, or without one once per content. The embeddings of
    the last `kept_images` images are kept.
    """

    name = "sam_hq"

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        device: str | torch.device = "cpu",
        kept_images: int = 2,
    ) -> None:
        """`model`: a network that `segment_anything_hq.sam_model_registry` built."""
        package = _import_package()
        self.device = resolve_device(device)
        self._predictor = package.SamPredictor(model.to(self.device).eval())
        self._kept_images = max(kept_images, 1)
        self._embeddings: OrderedDict[Hashable, _Embedding] = OrderedDict()

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | PathLike[str] | None,
        *,
        model_type: str = "vit_tiny",
        device: str | torch.device = "cpu",
        untrained: bool = False,
    ) -> SamHqCorrector:
        """Build SAM-HQ of one of `MODEL_TYPES` with published weights.

        `untrained` builds it with random weights instead, for tests. Raises CorrectorError if
        the package or the checkpoint is missing, or the checkpoint is of another network.
        """
        if model_type not in MODEL_TYPES:
            raise CorrectorError(
                f"SAM-HQ has no size {model_type!r}; choose one of {', '.join(MODEL_TYPES)}"
            )
        if untrained and checkpoint is not None:
            raise CorrectorError("give SAM-HQ a checkpoint or ask for untrained weights, not both")
        resolved = resolve_device(device)
        package = _import_package()
        state = None
        if not untrained:
            state = _read_checkpoint(checkpoint, model_type)
        model = package.sam_model_registry[model_type](checkpoint=None)
        if state is not None:
            load_weights(model, state, model_type=model_type)
        return cls(model, device=resolved)

    def refine(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        *,
        image_key: Hashable | None = None,
    ) -> list[Refinement]:
        """See `Corrector.refine`."""
        size = validate_image(image)
        for prompt in prompts:
            validate_prompt(prompt, size)
        if not prompts:
            return []
        try:
            with full_memory_explained(
                "SAM-HQ", f"a smaller size ({SIZE_OPTION}) or another device"
            ):
                self._embed(image, image_key)
                return [self._refine_one(prompt) for prompt in prompts]
        except CorrectorError:
            self._embeddings.clear()
            raise

    def _embed(self, image: NDArray[np.uint8], image_key: Hashable | None) -> None:
        """Make the predictor look at the image; its embedding is computed only if it is new."""
        key = _content_key(image) if image_key is None else image_key
        predictor = self._predictor
        known = self._embeddings.get(key)
        if known is not None and known[3] == image.shape:
            self._embeddings.move_to_end(key)
            predictor.features, predictor.interm_features, predictor.input_size, _ = known
            predictor.original_size = image.shape[:2]
            predictor.is_image_set = True
            return
        predictor.set_image(np.ascontiguousarray(image))
        self._embeddings[key] = (
            predictor.features,
            predictor.interm_features,
            predictor.input_size,
            image.shape,
        )
        self._embeddings.move_to_end(key)
        while len(self._embeddings) > self._kept_images:
            self._embeddings.popitem(last=False)

    def _refine_one(self, prompt: Prompt) -> Refinement:
        points = np.concatenate([prompt.positive, prompt.negative])
        signs = np.repeat([1, 0], [len(prompt.positive), len(prompt.negative)])
        prior = prompt.mask if prompt.mask is not None and prompt.mask.any() else None
        box = prompt.box
        if box is None and len(prompt.positive) == 0 and prior is not None:
            box = box_of_mask(prior)
        masks, scores, _ = self._predictor.predict(
            point_coords=points if len(points) else None,
            point_labels=signs if len(points) else None,
            box=None if box is None else np.asarray(box, np.float32),
            mask_input=None if prior is None else self._mask_input(prior),
            multimask_output=True,
            hq_token_only=True,
        )
        best = int(np.argmax(scores))
        score = float(scores[best])
        return Refinement(masks[best].astype(bool), min(max(score, 0.0), 1.0))

    def _mask_input(self, prior: BoolMask) -> NDArray[np.float32]:
        """The prior as SAM's mask input: logits float32 [1, 256, 256].

        SAM sees the image scaled to its input size and padded at the bottom and right to a
        square; the mask input is the same picture at a quarter of the resolution.
        """
        side = self._predictor.model.image_encoder.img_size
        scale = _MASK_INPUT_SIDE / side
        rows, columns = (max(1, round(n * scale)) for n in self._predictor.input_size)
        share = cv2.resize(prior.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        logits = np.full((1, _MASK_INPUT_SIDE, _MASK_INPUT_SIDE), -_PRIOR_LOGIT, np.float32)
        logits[0, :rows, :columns] = (2.0 * share - 1.0) * _PRIOR_LOGIT
        return logits


def load_weights(
    model: torch.nn.Module, state: dict[str, torch.Tensor], *, model_type: str
) -> None:
    """Fill the network from a state dict, after checking that every entry fits.

    Entries that the network does not have are left out. Raises CorrectorError, with the
    network unchanged, if an entry is missing or has another shape.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    misfits = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing or misfits:
        faults = misfits or [f"{name} is missing" for name in missing]
        more = len(faults) - _SHOWN_ENTRIES
        shown = "; ".join(faults[:_SHOWN_ENTRIES])
        raise CorrectorError(
            f"the checkpoint is not one of SAM-HQ {model_type}: {shown}"
            + (f" and {more} more" if more > 0 else "")
            + f". Take sam_hq_{model_type}.pth (a plain SAM checkpoint lacks SAM-HQ's own part), "
            f"or say the size that the file is of ({SIZE_OPTION})"
        )
    model.load_state_dict(state, strict=False)
    # The tiny encoder computes with a copy of its attention biases that is made on entering
    # evaluation mode: enter it again, or the copy stays the untrained one.
    model.eval()


def _read_checkpoint(
    checkpoint: str | PathLike[str] | None, model_type: str
) -> dict[str, torch.Tensor]:
    if checkpoint is None or not str(checkpoint):
        raise CorrectorError(
            f"SAM-HQ needs its weights: give the path of sam_hq_{model_type}.pth as checkpoint "
            "(https://github.com/SysCV/sam-hq lists the files), or use the corrector grabcut, "
            "which needs none"
        )
    path = user_path(checkpoint)
    if not path.is_file():
        raise CorrectorError(
            f"there is no SAM-HQ checkpoint at {path}; put sam_hq_{model_type}.pth there, or use "
            "the corrector grabcut, which needs none"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken zip, a foreign pickle, a short file: many types
        raise CorrectorError(
            f"{path} cannot be read as a checkpoint ({unreadable(error).splitlines()[0]}); "
            "fetch the file again"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise CorrectorError(f"{path} does not hold a network's weights; fetch the file again")
    try:
        check_values(state, str(path))
    except CheckpointError as error:
        raise CorrectorError(str(error)) from error
    return state


def _content_key(image: NDArray[np.uint8]) -> Hashable:
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
    return (image.shape, digest)


def _import_package() -> Any:
    try:
        with warnings.catch_warnings():
            # The package registers models under names that timm has, and says so at length.
            warnings.simplefilter("ignore")
            import segment_anything_hq
    except ImportError as error:
        raise CorrectorError(
            f"SAM-HQ cannot be imported ({error}); {install_command('sam-hq')} brings it, "
            "or use the corrector refiner"
        ) from error
    return segment_anything_hq
