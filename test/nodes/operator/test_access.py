# SPDX-License-Identifier: Apache-2.0
"""Who may use the console."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lazyxmem_ros.nodes.operator.access import (
    Access,
    AccessError,
    is_loopback,
    make_token,
    read_token,
    tls_context,
)


def access(address: str = "127.0.0.1", *names: str, token: str = "") -> Access:
    return Access.of(address, 8080, token=token, secure=False, names=names)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("robot.local", False),
    ],
)
def test_loopback_is_known(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@pytest.mark.parametrize(
    "host", ["localhost:8080", "127.0.0.1", "127.0.0.1:99", "[::1]:8080", "LOCALHOST."]
)
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert access().is_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "192.168.1.5",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[::1",
        "::1",
        "a:b:c",
        "localhost:80:80",
    ],
)
def test_other_names_lead_nowhere(host: str) -> None:
    """A page of another site may have its own name lead to this machine (DNS rebinding)."""
    assert not access().is_host(host)


def test_on_a_network_addresses_and_given_names_are_known() -> None:
    made = access("0.0.0.0", "Robot.Example")
    assert made.is_host("192.168.1.5:8080")
    assert made.is_host("robot.example")
    assert not made.is_host("evil.example")


def test_a_name_that_is_listened_on_is_known() -> None:
    """It is in the address that is printed."""
    assert access("Robot.lan").is_host("robot.lan:8080")


def test_only_the_page_itself_may_connect() -> None:
    made = access()
    assert made.is_origin("http://localhost:8080", "localhost:8080")
    for origin in ("", "null", "http://evil.example", "https://localhost:8080", "http://localhost"):
        assert not made.is_origin(origin, "localhost:8080")


def test_a_page_of_a_proxy_may_connect_which_ends_tls() -> None:
    """As far as the proxy's name was given; another port is another site."""
    made = access("127.0.0.1", "Robot.Example")
    assert made.is_origin("https://robot.example", "robot.example")
    assert made.is_origin("https://robot.example:8443", "robot.example:8443")
    assert made.is_origin("http://robot.example:8080", "robot.example:8080")
    assert not made.is_origin("https://robot.example:9000", "robot.example")
    assert not made.is_origin("https://robot.example", "127.0.0.1:8080")
    assert not made.is_origin("https://localhost:8080", "localhost:8080")


def test_the_token_opens_and_the_cookie_does_not_tell_it() -> None:
    token = make_token()
    made = access("0.0.0.0", token=token)
    assert made.knows_token(token)
    assert not made.knows_token(token[:-1])
    assert not made.knows_token("ünicode")
    assert made.has_cookie(made.cookie)
    assert not made.has_cookie("")
    assert not made.has_cookie(token)
    for unreadable in ("\udcff\udcfe", f"{made.cookie}\udcff"):  # what aiohttp makes of such bytes
        assert not made.has_cookie(unreadable)
        assert not made.knows_token(unreadable)
    assert token not in made.cookie
    assert access().has_cookie("")  # there is no token


def test_a_token_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"
    token = read_token(path)
    assert read_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token(tmp_path / "another") != token


def test_token_files_that_hold_none_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"short", b"\xff" * 40):
        path = tmp_path / "token"
        path.write_bytes(content)
        with pytest.raises(AccessError, match="token_file"):
            read_token(path)
    with pytest.raises(AccessError, match="token_file"):
        read_token(tmp_path)


def test_tls_needs_both_files(tmp_path: Path) -> None:
    assert tls_context("", "") is None
    with pytest.raises(AccessError, match="belong together"):
        tls_context("cert.pem", "")
    (tmp_path / "broken.pem").write_text("no certificate")
    for name in ("absent.pem", "broken.pem"):
        with pytest.raises(AccessError, match="cannot be used"):
            tls_context(str(tmp_path / name), str(tmp_path / name))
