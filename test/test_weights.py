# SPDX-License-Identifier: Apache-2.0
"""Weights files: what is known, what is fetched (over real HTTP), and what is refused."""

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lazyxmem_ros import weights
from lazyxmem_ros.cli import main
from lazyxmem_ros.lazy import calibration_beside
from lazyxmem_ros.weights import WeightsError
from training import calibrate
from training.material import DAVIS_TRAIN, TUNING_SEQUENCES

CONTENT = bytes(range(256)) * 8


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    served = tmp_path / "served"
    served.mkdir()
    (served / "model.pth").write_bytes(CONTENT)
    handler = partial(QuietHandler, directory=str(served))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def model(server: str, **changes: object) -> weights.Weights:
    known = weights.Weights("m", "model.pth", "", "MIT", len(CONTENT), f"{server}/model.pth")
    return replace(known, **changes)  # type: ignore[arg-type]


def test_fetch_keeps_the_file_in_the_cache(server: str, cache: Path) -> None:
    known = model(server)
    assert not known.present
    path = weights.fetch(known, progress=False)
    assert path == cache / "model.pth"
    assert path.read_bytes() == CONTENT
    assert weights.check(known) == weights.sha256(path)
    path.write_bytes(CONTENT + b"mine")
    weights.fetch(known, progress=False)
    assert path.read_bytes() == CONTENT + b"mine", "a present file is not downloaded again"


def test_a_bar_needs_no_package_that_is_not_asked_for(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pooch draws it with tqdm, which tracking alone does not bring."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr("pooch.downloaders.tqdm", None)
    assert weights.fetch(model(server)).read_bytes() == CONTENT


def test_truncated_download_is_not_kept(server: str, cache: Path) -> None:
    known = model(server, parameters_bytes=2 * len(CONTENT))
    with pytest.raises(WeightsError, match="truncated"):
        weights.fetch(known, progress=False)
    assert not (cache / "model.pth").exists()
    (cache / "model.pth").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"model\.pth has .* truncated; remove it, and fetch it"):
        weights.check(known)


def test_without_a_connection_the_error_says_what_to_put_where(cache: Path) -> None:
    known = model("http://127.0.0.1:9")
    with pytest.raises(WeightsError) as error:
        weights.fetch(known, progress=False)
    assert "http://127.0.0.1:9/model.pth" in str(error.value)
    assert str(cache / "model.pth") in str(error.value)


def test_locate_names_the_way_to_published_weights(cache: Path) -> None:
    with pytest.raises(WeightsError, match="lazyxmem weights fetch xmem-s012"):
        weights.locate("xmem-s012")
    cache.mkdir()
    (cache / "XMem-s012.pth").write_bytes(b"x")
    assert weights.locate("xmem-s012") == cache / "XMem-s012.pth"


def test_locate_takes_paths(tmp_path: Path) -> None:
    (tmp_path / "own.pth").write_bytes(b"x")
    assert weights.locate(str(tmp_path / "own.pth")) == tmp_path / "own.pth"
    with pytest.raises(WeightsError, match="no weights file"):
        weights.locate(str(tmp_path / "none.pth"))


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(WeightsError, match="xmem-s012"):
        weights.find("yolo")


def test_every_embedded_model_matches_its_checksum() -> None:
    embedded = [w for w in weights.KNOWN if w.url is None]
    assert embedded
    for known in embedded:
        assert known.file in weights._embedded_checksums()
        weights.check(known)


def test_altered_embedded_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = weights.find("tracker")
    altered = known.path.read_bytes()[:-1] + b"!"
    sums = (known.path.parent / "SHA256SUMS").read_text()
    monkeypatch.setattr(weights, "_HERE", tmp_path)
    (tmp_path / known.file).write_bytes(altered)
    (tmp_path / "SHA256SUMS").write_text(sums)
    with pytest.raises(WeightsError, match=r"altered.*; reinstall lazyxmem_ros"):
        weights.check(known)


def test_command_line(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(known.name in listed for known in weights.KNOWN)
    assert main(["weights", "check", "tracker"]) == 0
    assert "sha256" in capsys.readouterr().out
    assert main(["weights", "check", "sam-hq-b"]) == 1
    assert main(["weights", "check", "yolo"]) == 1
    assert "known are" in capsys.readouterr().err


def test_one_published_tracker_is_recommended_and_the_readme_names_it(root: Path) -> None:
    (recommended,) = (known.name for known in weights.KNOWN if "recommended" in known.about)
    readme = (root / "README.md").read_text()
    assert f"lazyxmem weights fetch {recommended} " in readme
    assert f"weights: {recommended}\n" in readme


def test_the_embedded_tracker_has_its_calibration() -> None:
    """The default predicted IoUs are those that the calibration found for it."""
    from lazyxmem_ros.lazy import LazyConfig

    calibration = calibration_beside(weights.find(weights.DEFAULT_TRACKER).path)
    assert calibration is not None
    for name in ("operator_iou", "hold_iou"):
        assert getattr(LazyConfig(), name) == calibration.thresholds[name]
        assert getattr(LazyConfig.paper(), name) == 0


# ---- calibrating


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    """A folder with a frame of every sequence; nobody looks at them here."""
    davis = tmp_path / "data" / DAVIS_TRAIN
    for name in TUNING_SEQUENCES:
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (davis / kind / "360p" / name).mkdir(parents=True)
            (davis / kind / "360p" / name / f"00000.{suffix}").touch()
    return davis.parent


def observed(*_: object) -> pd.DataFrame:
    """Frames as the tracker would be observed on them."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 1, (60, 3 + len(calibrate.NAMES)))
    frames = pd.DataFrame(values, columns=["iou", "entropy", "rate", *calibrate.NAMES])
    frames["iou"] = rng.permutation(np.linspace(0, 1, len(frames)))
    return frames.assign(sequence=["one", "two"] * 30, view=calibrate.VIEWS[0].name)


def test_calibrating_takes_a_name(
    sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = weights.find("tracker")
    own = tmp_path / "own"
    own.mkdir()
    (own / tracker.file).write_bytes(tracker.path.read_bytes())
    monkeypatch.setattr(weights, "_HERE", own)
    monkeypatch.setattr(calibrate, "watch", observed)
    command = ["tracker", "--data", str(sequences), "--out", str(tmp_path / "out")]
    assert calibrate.main([*command, "--device", "cpu", "--max-internal-size", "480"]) == 0
    calibration = calibration_beside(own / tracker.file)
    assert calibration is not None
    assert calibration.about["max_internal_size"] == 480


def test_calibrating_says_what_is_missing(
    cache: Path, sequences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*command: str) -> str:
        assert calibrate.main([*command, "--out", str(tmp_path / "out")]) == 1
        return " ".join(capsys.readouterr().err.split())

    assert "lazyxmem weights fetch xmem-s012" in fault("xmem-s012")
    assert "no weights file" in fault(str(tmp_path / "none.pth"))
    nowhere = fault("tracker", "--data", str(tmp_path / "nowhere"))
    assert f"there is no {tmp_path}/nowhere/{DAVIS_TRAIN}/JPEGImages/360p" in nowhere
    (lost,) = (sequences / DAVIS_TRAIN / "Annotations/360p/soccerball").iterdir()
    lost.unlink()
    told = fault("tracker", "--data", str(sequences))
    assert "the sequence 'soccerball' is incomplete" in told
    assert "training/README.md" in told
