# SPDX-License-Identifier: Apache-2.0
"""SAM-HQ's real code on an untrained vit_tiny: everything but the quality of its masks."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch

from lazyxmem_ros.correction import CorrectorError, Prompt, PromptError, make_corrector
from lazyxmem_ros.correction.base import Corrector
from lazyxmem_ros.correction.sam_hq import MODEL_TYPES, SamHqCorrector, load_weights

pytest.importorskip("segment_anything_hq", reason="segment-anything-hq is not installed")

SIZE = (90, 120)
PRIOR = np.zeros(SIZE, bool)
PRIOR[30:60, 20:70] = True


def image_of(seed: int, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def corrector() -> SamHqCorrector:
    torch.manual_seed(0)
    made = make_corrector("sam_hq", device="cpu", model_type="vit_tiny", untrained=True)
    assert isinstance(made, SamHqCorrector)
    assert isinstance(made, Corrector)
    return made


@pytest.fixture(scope="module")
def encoded(corrector):
    """What the real image encoder, the slow part, makes of one image."""
    corrector.refine(image_of(0), [Prompt([(40, 40)])], image_key="encoded")
    return corrector._predictor.features, corrector._predictor.interm_features


@pytest.fixture
def embeddings(corrector, encoded, monkeypatch):
    """Counts how often an image is embedded, from an empty cache on.

    The encoder's answer is taken from `encoded`, and made to depend on the image.
    """
    calls = []

    def encode(pixels):
        calls.append(pixels.shape)
        features, inner = encoded
        return features * (1 + pixels[0, :, 0, 0].sum()), inner

    monkeypatch.setattr(corrector._predictor.model.image_encoder, "forward", encode)
    corrector._embeddings.clear()
    yield calls
    corrector._embeddings.clear()


@pytest.fixture
def arguments(corrector, monkeypatch):
    """What `predict` is called with."""
    seen = []
    original = corrector._predictor.predict

    def watched(**options):
        seen.append(options)
        return original(**options)

    monkeypatch.setattr(corrector._predictor, "predict", watched)
    return seen


def test_every_kind_of_prompt(corrector, encoded, arguments):
    image = image_of(0)
    prompts = [
        Prompt([(40, 40)]),
        Prompt([(40, 40), (50, 44)], [(5, 5)]),
        Prompt(box=(20, 30, 70, 60)),
        Prompt(mask=PRIOR),
        Prompt([(40, 40)], [(1, 1)], (20, 30, 70, 60), PRIOR),
    ]
    results = corrector.refine(image, prompts, image_key="encoded")
    assert len(results) == len(prompts)
    for result in results:
        assert result.mask.shape == SIZE
        assert result.mask.dtype == np.bool_
        assert 0 <= result.score <= 1
    for options in arguments:
        assert options["multimask_output"] is True
        assert options["hq_token_only"] is True
    click, clicks, box, prior, everything = arguments
    assert click["point_coords"].tolist() == [[40, 40]]
    assert click["box"] is None
    assert click["mask_input"] is None
    assert clicks["point_labels"].tolist() == [1, 1, 0]
    assert box["point_coords"] is None
    assert box["box"].tolist() == [20, 30, 70, 60]
    # A prior alone gives its box too; with a click it does not bind so tightly.
    assert prior["box"].tolist() == [20, 30, 70, 60]
    assert prior["mask_input"].shape == (1, 256, 256)
    assert everything["mask_input"] is not None
    assert everything["box"].tolist() == [20, 30, 70, 60]


def test_prompts_matter(corrector, encoded):
    prompts = [Prompt([(5, 5)]), Prompt(mask=PRIOR)]
    one, other = corrector.refine(image_of(0), prompts, image_key="encoded")
    assert not np.array_equal(one.mask, other.mask)


def test_the_embedding_is_computed_once_per_image(corrector, embeddings):
    first, second = image_of(1), image_of(2)
    prompt = [Prompt([(40, 40)])]
    a = corrector.refine(first, prompt, image_key=1)[0]
    b = corrector.refine(second, prompt, image_key=2)[0]
    again = corrector.refine(first, prompt, image_key=1)[0]
    assert len(embeddings) == 2
    assert np.array_equal(a.mask, again.mask)
    assert a.score == again.score
    assert not np.array_equal(a.mask, b.mask)
    corrector.refine(image_of(3), prompt, image_key=3)  # pushes the oldest out
    assert len(embeddings) == 3
    corrector.refine(second, prompt, image_key=2)
    assert len(embeddings) == 4


def test_without_a_key_the_content_decides(corrector, embeddings):
    prompt = [Prompt([(40, 40)])]
    corrector.refine(image_of(1), prompt)
    corrector.refine(image_of(1).copy(), prompt)
    assert len(embeddings) == 1


def test_a_key_used_again_for_another_size_is_not_believed(corrector, embeddings):
    corrector.refine(image_of(1), [Prompt([(40, 40)])], image_key="k")
    (result,) = corrector.refine(image_of(1, (60, 50)), [Prompt([(40, 40)])], image_key="k")
    assert result.mask.shape == (60, 50)
    assert len(embeddings) == 2


def test_the_prior_lies_where_sam_looks_for_it(corrector, embeddings):
    corrector.refine(image_of(1), [Prompt([(40, 40)])], image_key="p")
    (logits,) = corrector._mask_input(PRIOR)
    # 90 x 120 becomes 768 x 1024, a quarter of which is 192 x 256: 2.133 logits to a pixel.
    inside = np.argwhere(logits > 0)
    assert inside.min(0).tolist() == [64, 43]
    assert inside.max(0).tolist() == [127, 148]
    assert logits[192:].max() < -5  # the padding
    assert logits.max() > 5


def test_bad_prompts_are_refused_before_any_work(corrector, embeddings):
    with pytest.raises(PromptError):
        corrector.refine(image_of(1), [Prompt([(40, 40)]), Prompt()])
    with pytest.raises(PromptError):
        corrector.refine(image_of(1)[..., 0], [Prompt([(40, 40)])])
    assert corrector.refine(image_of(1), []) == []
    assert embeddings == []


# ---- checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file as the published ones are: a state dict of tensors, of other weights."""
    from segment_anything_hq import sam_model_registry

    torch.manual_seed(1)
    model = sam_model_registry["vit_tiny"](checkpoint=None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("attention_biases"):  # zero in a fresh network
                parameter.normal_()
    model.train()
    model.eval()
    path = tmp_path_factory.mktemp("sam") / "sam_hq_vit_tiny.pth"
    torch.save(model.state_dict(), path)
    return path, SamHqCorrector(model)


def test_a_checkpoint_makes_the_network_it_was_saved_from(checkpoint):
    path, source = checkpoint
    torch.manual_seed(2)
    loaded = make_corrector("sam_hq", checkpoint=path, device="cpu")
    prompts = [Prompt([(40, 40)]), Prompt(mask=PRIOR)]
    for a, b in zip(
        loaded.refine(image_of(4), prompts), source.refine(image_of(4), prompts), strict=True
    ):
        assert np.array_equal(a.mask, b.mask)
        assert a.score == pytest.approx(b.score, abs=1e-5)


def test_a_checkpoint_that_does_not_fit_changes_nothing(checkpoint, corrector):
    path, _ = checkpoint
    state = torch.load(path, weights_only=True)
    model = corrector._predictor.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = {name: value for name, value in state.items() if "hf_token" not in name}
    with pytest.raises(CorrectorError, match=r"hf_token.weight is missing.*plain SAM"):
        load_weights(model, plain, model_type="vit_tiny")
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 7)
    with pytest.raises(CorrectorError, match=r"iou_token.weight is \(1, 7\) instead of \(1, 256\)"):
        load_weights(model, state, model_type="vit_tiny")
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("the checkpoint's code was run",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read"),
        (b"<html>not found</html>", "cannot be read"),
        (bytes(1000), "it is damaged"),  # of which PyTorch advises to execute it
        (pickle.dumps(Evil()), "cannot be read"),
        ([1, 2], "does not hold a network's weights"),
        ({"a": 1}, "does not hold a network's weights"),
        ({"a": torch.tensor([1.0, torch.nan])}, "holds NaN or infinite numbers in a"),
        ({"a": torch.zeros(1)}, "missing"),
        ({"model": {"a": torch.zeros(1)}}, "missing"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, content, says):
    path = tmp_path / "sam_hq_vit_tiny.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CorrectorError, match=says):
        make_corrector("sam_hq", checkpoint=path, device="cpu")


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"weight": Evil()}, path)
    with pytest.raises(CorrectorError, match="cannot be read"):
        make_corrector("sam_hq", checkpoint=path, device="cpu")


@pytest.mark.parametrize("checkpoint_path", [None, ""])
def test_no_checkpoint_says_which_file(checkpoint_path):
    with pytest.raises(CorrectorError, match=r"sam_hq_vit_b\.pth.*grabcut"):
        make_corrector("sam_hq", checkpoint=checkpoint_path, model_type="vit_b", device="cpu")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorrectorError, match=r"no SAM-HQ checkpoint at .*none\.pth"):
        make_corrector("sam_hq", checkpoint=tmp_path / "none.pth", device="cpu")


def test_bad_settings(tmp_path):
    with pytest.raises(CorrectorError, match="vit_tiny, vit_b, vit_l, vit_h"):
        make_corrector("sam_hq", model_type="vit_g", untrained=True)
    with pytest.raises(CorrectorError, match="not both"):
        make_corrector("sam_hq", checkpoint=tmp_path, untrained=True)
    with pytest.raises(CorrectorError, match="device"):
        make_corrector("sam_hq", device="toaster", untrained=True)
    with pytest.raises(CorrectorError, match="cuda:99"):
        make_corrector("sam_hq", device="cuda:99", untrained=True)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "segment_anything_hq", None)
    with pytest.raises(CorrectorError, match=r"pip install 'lazyxmem_ros\[sam-hq\]'"):
        make_corrector("sam_hq", untrained=True, device="cpu")


def test_all_four_sizes_exist():
    from segment_anything_hq import sam_model_registry

    assert set(MODEL_TYPES) == set(sam_model_registry) - {"default"}
