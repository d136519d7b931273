# SPDX-License-Identifier: Apache-2.0
"""Weights files: every published layout, and everything that can be wrong with one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lazyxmem_ros.xmem import (
    CheckpointError,
    EncoderConfig,
    NetworkConfig,
    XMem,
    load_network,
    save_network,
)
from lazyxmem_ros.xmem.checkpoint import read_state_dict

State = dict[str, torch.Tensor]


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_published_shapes_give_the_published_config(golden_state: State) -> None:
    network = load_network(golden_state)
    assert network.config == NetworkConfig()
    assert not network.training
    assert same(network.state_dict(), golden_state)


def test_smaller_network_of_the_same_plan(small_network: XMem, tmp_path: Path) -> None:
    torch.save(small_network.state_dict(), tmp_path / "small.pth")
    loaded = load_network(tmp_path / "small.pth")
    assert loaded.config == small_network.config
    assert same(loaded.state_dict(), small_network.state_dict())


@pytest.mark.parametrize(
    "encoder",
    [
        EncoderConfig("inverted", 8, (1, 2, 2, 3, 1), (4, 8, 8, 12, 16)),
        EncoderConfig("inverted", 4, (2, 1, 1, 1, 2), (8, 8, 12, 12, 12)),
        EncoderConfig("bottleneck", 8, (1, 2, 1), (4, 4, 8)),
        EncoderConfig("basic", 8, (2, 1, 3), (8, 8, 16)),
    ],
)
def test_every_kind_of_encoder_is_known_from_its_entries(
    small_network: XMem, encoder: EncoderConfig
) -> None:
    config = replace(small_network.config, key_encoder=encoder)
    assert load_network(XMem(config).state_dict()).config == config
    config = replace(small_network.config, value_encoder=encoder)
    assert load_network(XMem(config).state_dict()).config == config


@pytest.mark.parametrize("wrapper", ["network", "state_dict"])
def test_training_checkpoint_is_unwrapped(
    wrapper: str, small_network: XMem, tmp_path: Path
) -> None:
    torch.save({"it": 3, wrapper: small_network.state_dict()}, tmp_path / "c.pth")
    assert same(load_network(tmp_path / "c.pth").state_dict(), small_network.state_dict())


def test_single_object_stem_is_widened_by_zeros(small_network: XMem) -> None:
    state = dict(small_network.state_dict())
    name = "value_encoder.conv1.weight"
    state[name] = state[name][:, :4]
    widened = load_network(state).state_dict()[name]
    assert torch.equal(widened[:, :4], state[name])
    assert not widened[:, 4].any()


def test_without_hidden_state(small_network: XMem) -> None:
    network = XMem(replace(small_network.config, hidden_dim=0))
    assert load_network(network.state_dict()).config.hidden_dim == 0


def test_safetensors_round_trip_in_half_precision(small_network: XMem, tmp_path: Path) -> None:
    save_network(small_network, tmp_path / "w.safetensors", metadata={"steps": "7"})
    loaded = load_network(tmp_path / "w.safetensors")
    expected = {
        k: v.half().float() if v.is_floating_point() else v
        for k, v in small_network.state_dict().items()
    }
    assert same(loaded.state_dict(), expected)


def test_missing_file_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="lazyxmem weights list"):
        load_network(tmp_path / "none.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_file(suffix: str, small_network: XMem, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(small_network.state_dict(), path)
    else:
        save_network(small_network, path)
    for left in (1000, 0):
        path.write_bytes(path.read_bytes()[:left])
        with pytest.raises(CheckpointError, match=r"cannot be read as weights: \w"):
            load_network(path)


@pytest.mark.parametrize("of_old", [False, True])
def test_a_file_that_is_damaged_anywhere_is_refused_by_name(of_old: bool, tmp_path: Path) -> None:
    """And never with PyTorch's advice to execute what is in it."""
    path = tmp_path / "w.pth"
    state = {"a": torch.arange(3.0), "b": torch.zeros(2, 2)}
    torch.save(state, path, _use_new_zipfile_serialization=not of_old)
    whole = path.read_bytes()
    damaged = [whole[:place] + bytes(9) + whole[place + 9 :] for place in range(0, len(whole), 7)]
    cut = [whole[:left] for left in range(0, len(whole), 31)]
    for content in (*damaged, *cut, bytes(1000)):
        path.write_bytes(content)
        said = ""
        try:
            read_state_dict(path)
        except CheckpointError as error:
            said = str(error)
        assert said.startswith(str(path)) or not said  # where it is read, numbers may be others
        assert "weights_only" not in said


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("the trap went off",))


def test_pickled_code_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"network": Trap()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError):
        load_network(tmp_path / "evil.pth")
    assert "trap" not in capsys.readouterr().out


def test_something_else_than_a_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_network(tmp_path / "list.pth")


@pytest.mark.parametrize("entry", ["decoder.pred.weight", "key_encoder.conv1.weight"])
def test_missing_entry_is_named(entry: str, small_network: XMem) -> None:
    state = dict(small_network.state_dict())
    del state[entry]
    with pytest.raises(CheckpointError, match=entry):
        load_network(state)


def test_wrong_shape_is_named(small_network: XMem) -> None:
    state = dict(small_network.state_dict())
    state["decoder.pred.weight"] = torch.zeros(1, 3, 3, 3)
    with pytest.raises(CheckpointError, match=r"decoder\.pred\.weight.*\[1, 3, 3, 3\]"):
        load_network(state)


def test_foreign_entry_is_named(small_network: XMem) -> None:
    state = {**small_network.state_dict(), "head.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        load_network(state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(small_network: XMem, value: float) -> None:
    state = dict(small_network.state_dict())
    entry = next(key for key, tensor in state.items() if tensor.is_floating_point())
    state[entry] = torch.full_like(state[entry], value)
    with pytest.raises(CheckpointError, match=f"infinite numbers in {entry}"):
        load_network(state)


LOADING = """
import sys
from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import load_network

load_network(locate(""))
print(*(name for name in ("sympy", "torch._dynamo") if name in sys.modules))
"""


def test_a_network_is_loaded_without_pytorchs_compiler() -> None:
    """Its import takes seconds."""
    command = [sys.executable, "-c", LOADING]
    loaded = subprocess.run(command, timeout=120, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
