# SPDX-License-Identifier: Apache-2.0
"""Weights files: what is known, what is fetched (over real HTTP), and what is refused."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lazyxmem_ros import weights
from lazyxmem_ros.cli import main
from lazyxmem_ros.weights import WeightsError

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


def test_truncated_download_is_not_kept(server: str, cache: Path) -> None:
    known = model(server, parameters_bytes=2 * len(CONTENT))
    with pytest.raises(WeightsError, match="truncated"):
        weights.fetch(known, progress=False)
    assert not (cache / "model.pth").exists()


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
    with pytest.raises(WeightsError, match="altered"):
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


def test_the_embedded_tracker_has_its_calibration() -> None:
    """The default thresholds are those that the calibration found for it."""
    from lazyxmem_ros.lazy import LazyConfig, calibration_beside

    calibration = calibration_beside(weights.find(weights.DEFAULT_TRACKER).path)
    assert calibration is not None
    for name in ("user_iou", "hold_iou"):
        assert getattr(LazyConfig(), name) == calibration.thresholds[name]
        assert getattr(LazyConfig.paper(), name) == 0
