# SPDX-License-Identifier: Apache-2.0
"""The network against the published one, part by part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lazyxmem_ros.xmem.folding import fold_batch_norm, on_device
from lazyxmem_ros.xmem.network import EncoderConfig, XMem, aggregate, aggregate_logits
from lazyxmem_ros.xmem.tracker import XMemTracker

DATA = Path(__file__).parents[1] / "data"
TOLERANCE = 1e-4  # of the largest magnitude


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(a) for name, a in np.load(DATA / "modules.npz").items()}


@pytest.fixture(scope="module")
def outputs(golden_network: XMem, golden: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        features = golden_network.encode_key(golden["image"])
        value, deep = golden_network.encode_value(
            golden["image"], features.f16, golden["masks"], golden["hidden"], deep_update=True
        )
        logits, hidden = golden_network.decode(features, value, deep, update_hidden=True)
        assert deep is not None
        assert hidden is not None
        probabilities = torch.sigmoid(logits)
        return {
            **features._asdict(),
            "value": value,
            "hidden_after_deep": deep,
            "hidden_after_segment": hidden,
            "logits": aggregate_logits(probabilities, dim=1),
            "prob": aggregate(probabilities, dim=1),
        }


@pytest.mark.parametrize(
    "name",
    [
        *("key", "shrinkage", "selection", "f16", "f8", "f4"),
        *("value", "hidden_after_deep", "hidden_after_segment", "logits", "prob"),
    ],
)
def test_module_agrees(
    name: str, golden: dict[str, torch.Tensor], outputs: dict[str, torch.Tensor]
) -> None:
    expected = golden[name]
    assert outputs[name].shape == expected.shape
    assert (outputs[name] - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_several_images_at_once_are_as_each_alone(small_network: XMem) -> None:
    torch.manual_seed(1)
    image, masks = torch.randn(2, 3, 32, 48), torch.rand(2, 3, 32, 48)
    hidden = torch.randn(2, 3, small_network.config.hidden_dim, 2, 3)

    def run(i: torch.Tensor, m: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = small_network.encode_key(i)
        value, deep = small_network.encode_value(i, features.f16, m, h, deep_update=True)
        return value, *small_network.decode(features, value, deep, update_hidden=True)

    with torch.inference_mode():
        together = run(image, masks, hidden)
        for b in range(2):
            alone = run(image[b : b + 1], masks[b : b + 1], hidden[b : b + 1])
            for a, t in zip(alone, together, strict=True):
                torch.testing.assert_close(a[0], t[b], rtol=1e-4, atol=1e-5)


def test_aggregate_is_a_distribution() -> None:
    p = aggregate(torch.rand(3, 4, 5, generator=torch.manual_seed(0)))
    assert p.shape == (4, 4, 5)
    torch.testing.assert_close(p.sum(0), torch.ones(4, 5))


@pytest.mark.parametrize(
    "encoder",
    [
        EncoderConfig("basic", 8, (2, 1, 1), (8, 8, 16)),
        EncoderConfig("bottleneck", 8, (1, 1, 1), (4, 4, 8)),
        EncoderConfig("inverted", 8, (1, 2, 1, 1, 1), (8, 8, 8, 12, 16)),
    ],
)
def test_folded_normalisation_changes_nothing_but_rounding(
    small_network: XMem, encoder: EncoderConfig
) -> None:
    torch.manual_seed(0)
    config = replace(small_network.config, key_encoder=encoder, value_encoder=encoder)
    network = XMem(config).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert folded.decoder.pred.weight is network.decoder.pred.weight
    assert fold_batch_norm(folded) is folded
    image, masks = torch.randn(1, 3, 32, 48), torch.rand(1, 2, 32, 48)
    with torch.inference_mode():
        for mine, expected in zip(
            _answers(folded, image, masks), _answers(network, image, masks), strict=True
        ):
            assert (mine - expected).abs().max() <= TOLERANCE * expected.abs().max()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_tracker_elsewhere_leaves_the_network_where_it_is(small_network: XMem) -> None:
    """Folded or not; a second tracker of the first one's network needs no copy."""
    elsewhere = torch.device("meta")
    for network in (small_network, fold_batch_norm(small_network)):
        before = dict(network.state_dict())
        tracker = XMemTracker(network, device=elsewhere)
        moved = [*tracker.network.parameters(), *tracker.network.buffers()]
        assert {tensor.device for tensor in moved} == {elsewhere}
        assert all(parameter.is_leaf for parameter in tracker.network.parameters())
        assert tracker.network.state_dict().keys() == fold_batch_norm(network).state_dict().keys()
        assert XMemTracker(tracker.network, device=elsewhere).network is tracker.network
        for name, value in network.state_dict().items():
            assert value.device.type == "cpu", name
            assert value.data_ptr() == before[name].data_ptr(), name


def test_on_the_device_nothing_is_copied(small_network: XMem) -> None:
    folded = fold_batch_norm(small_network)
    assert on_device(folded, torch.device("cpu")) is folded


def _answers(network: XMem, image: torch.Tensor, masks: torch.Tensor) -> list[torch.Tensor]:
    features = network.encode_key(image)
    hidden = masks.new_zeros(1, 2, network.config.hidden_dim, 2, 3)
    value, _ = network.encode_value(image, features.f16, masks, hidden, deep_update=True)
    return [*features, value]
