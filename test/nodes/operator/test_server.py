# SPDX-License-Identifier: Apache-2.0
"""What the server refuses, and that it goes on; without a browser."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp (requirements-operator.txt)")

import aiohttp
import numpy as np
from console_harness import Camera, Console
from node_graph import WAIT_S, header, parameters, scene_message, wait_for
from rclpy.serialization import serialize_message
from tracker_harness import Tracker

from lazyxmem_ros.nodes.conversions import labels_message
from lazyxmem_ros.nodes.operator import browser as browser_module
from lazyxmem_ros.nodes.operator import server as server_module
from lazyxmem_ros.nodes.operator.messages import MAX_POINTS, PROTOCOL
from lazyxmem_ros.nodes.operator.node import OperatorNode
from lazyxmem_ros.nodes.running import NodeStartError

SESSION = "0123456789abcdef"
HELLO = {"type": "hello", "protocol": PROTOCOL, "session": SESSION}
Talk = Callable[[aiohttp.ClientSession, str], Awaitable[Any]]


@pytest.fixture(scope="module")
def console(answering: Tracker) -> Iterator[Console]:
    made = Console([answering.name], max_message_megabytes=0.1, max_browsers=3)
    yield made
    made.close()


def talk(url: str, what: Talk, certificate: Path | None = None) -> Any:
    """Runs what a browser may do; returns its result. certificate: of whom it trusts."""

    async def run() -> Any:
        trusted = True if certificate is None else ssl.create_default_context(cafile=certificate)
        connector = aiohttp.TCPConnector(ssl=trusted)
        jar = aiohttp.CookieJar(unsafe=True)  # of an address, not a name
        async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session:
            return await asyncio.wait_for(what(session, url), 2 * WAIT_S)

    return asyncio.run(run())


def connect(session: aiohttp.ClientSession, url: str, **headers: str) -> Any:
    origin = url.rstrip("/")
    return session.ws_connect(f"{url}connect", headers={"Origin": origin, **headers})


async def answer(socket_: Any, kind: str) -> dict[str, Any]:
    """The next message of a kind."""
    while True:
        message = await socket_.receive(timeout=WAIT_S)
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        text = message.data
        if isinstance(text, bytes):
            (length,) = struct.unpack_from("<I", text)
            text = text[4 : 4 + length]
        found: dict[str, Any] = json.loads(text)
        if found["type"] == kind:
            return found


async def state_of(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """That the console still answers."""
    async with connect(session, url) as socket_:
        await socket_.send_json(HELLO)
        return await answer(socket_, "state")


# ---- HTTP


@pytest.mark.parametrize(
    "path",
    [
        "style.cs",
        "__init__.py",
        "..%2fnode.py",
        "%2e%2e/node.py",
        "/etc/passwd",
        "page/index.html",
        "%2fetc%2fpasswd",
        "..%5c..%5cnode.py",
        "a" * 5000,
    ],
)
def test_nothing_but_the_page_s_own_files_is_served(console: Console, path: str) -> None:
    """The request is sent as it stands: clients would tidy it up."""
    with socket.create_connection(("127.0.0.1", console.node.port), timeout=WAIT_S) as connection:
        request = f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        reply = b""
        while part := connection.recv(65536):
            reply += part
    status = int(reply.split(b" ", 2)[1])
    assert status in (400, 404), reply[:200]


def test_every_answer_carries_the_policy(console: Console) -> None:
    async def look(session: aiohttp.ClientSession, url: str) -> None:
        for path in ("", "main.js", "style.css", "icon.svg", "nothing"):
            async with session.get(url + path) as reply:
                assert reply.status == (404 if path == "nothing" else 200)
                policy = reply.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert reply.headers["X-Content-Type-Options"] == "nosniff"
                assert "http://" not in await reply.text() or path == "icon.svg"

    talk(console.url, look)


@pytest.mark.parametrize("host", ["evil.example", "192.168.0.1", "evil.example:80", "[::1"])
def test_another_host_s_name_is_refused(console: Console, host: str) -> None:
    async def look(session: aiohttp.ClientSession, url: str) -> int:
        async with session.get(url, headers={"Host": host}) as reply:
            return reply.status

    before = console.refusals().get("browser: host", 0)
    assert talk(console.url, look) in (400, 421)
    if not host.startswith("["):
        assert console.refusals()["browser: host"] == before + 1


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "https://127.0.0.1"])
def test_another_site_s_page_cannot_connect(console: Console, origin: str) -> None:
    async def look(session: aiohttp.ClientSession, url: str) -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(session, url, Origin=origin):
                pass
        return refused.value.status

    assert talk(console.url, look) == 403
    assert console.refusals()["browser: origin"] > 0


# ---- messages


def test_malformed_messages_are_refused_counted_and_survived(console: Console) -> None:
    async def speak(session: aiohttp.ClientSession, url: str) -> None:
        async with connect(session, url) as socket_:
            await socket_.send_str('{"type": "watch", "tracker": null}')  # before hello
            assert (await answer(socket_, "refused"))["code"] == "malformed"
            await socket_.send_json(HELLO)
            await answer(socket_, "welcome")
            for data in ("nonsense", "{}", '{"type": "shown", "number": "x"}'):
                await socket_.send_str(data)
                assert (await answer(socket_, "refused"))["code"] == "malformed"
            await socket_.send_bytes(b"\xff\xff\xff\xff")
            assert (await answer(socket_, "refused"))["code"] == "malformed"
            await socket_.send_json({"type": "watch", "tracker": "/no/such"})
            assert (await answer(socket_, "refused"))["code"] == "unknown_tracker"
            await socket_.send_json({"type": "open_request", "request": "a|b"})
            refused = await answer(socket_, "refused")
            assert (refused["code"], refused["about"]) == ("unknown_tracker", "a|b")

    before = console.refusals().get("browser: malformed", 0)
    talk(console.url, speak)
    assert console.refusals()["browser: malformed"] == before + 5
    assert talk(console.url, state_of)["trackers"]


def test_a_command_that_cannot_be_read_is_answered_for_the_page_waits(console: Console) -> None:
    points = [[1, 1]] * (MAX_POINTS + 1)
    unreadable = {
        "done": {"type": "answer", "seq": 5, "request": "a|b", "outcome": "mask"},
        "refined": {"type": "refine", "seq": 6, "tracker": "/t", "stamp": "1"},
    }

    async def speak(session: aiohttp.ClientSession, url: str) -> None:
        async with connect(session, url) as socket_:
            await socket_.send_json(HELLO)
            await answer(socket_, "welcome")
            for kind, message in unreadable.items():
                await socket_.send_json({**message, "positive": points})
                said = await answer(socket_, kind)
                assert (said["seq"], said["ok"]) == (message["seq"], False)
                assert (said["code"], "length" in said["detail"]) == ("malformed", True)

    talk(console.url, speak)


def test_who_goes_on_with_nonsense_is_cut_off(console: Console) -> None:
    async def speak(session: aiohttp.ClientSession, url: str) -> int:
        async with connect(session, url) as socket_:
            for _ in range(server_module.MAX_MALFORMED):
                await socket_.send_str("nonsense")
            while not socket_.closed:
                await socket_.receive(timeout=WAIT_S)
            return int(socket_.close_code)

    assert talk(console.url, speak) == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert talk(console.url, state_of)


def test_an_oversized_message_ends_its_connection_alone(console: Console) -> None:
    async def speak(session: aiohttp.ClientSession, url: str) -> int:
        async with connect(session, url) as socket_:
            await socket_.send_json(HELLO)
            await answer(socket_, "welcome")
            await socket_.send_bytes(bytes(200_000))
            while not socket_.closed:
                await socket_.receive(timeout=WAIT_S)
            return int(socket_.close_code)

    assert talk(console.url, speak) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    wait_for(lambda: console.refusals().get("browser: message"), "the count")
    assert talk(console.url, state_of)


def test_a_flood_is_cut_off(console: Console) -> None:
    async def speak(session: aiohttp.ClientSession, url: str) -> int:
        async with connect(session, url) as socket_:
            await socket_.send_json(HELLO)
            for number in range(2 * int(browser_module.MESSAGE_BURST)):
                await socket_.send_json({"type": "shown", "number": number})
            while not socket_.closed:
                await socket_.receive(timeout=WAIT_S)
            return int(socket_.close_code)

    assert talk(console.url, speak) == aiohttp.WSCloseCode.POLICY_VIOLATION
    wait_for(lambda: console.refusals().get("browser: flood"), "the count")
    assert talk(console.url, state_of)


def test_who_reads_no_refusals_is_cut_off(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def speak(session: aiohttp.ClientSession, url: str) -> int:
        async with connect(session, url) as socket_:
            await socket_.send_json(HELLO)
            await answer(socket_, "welcome")
            monkeypatch.setattr(browser_module, "MAX_REPLIES", 0)
            await socket_.send_json({"type": "watch", "tracker": "/no/such"})
            while not socket_.closed:
                await socket_.receive(timeout=WAIT_S)
            return int(socket_.close_code)

    before = console.refusals().get("browser: flood", 0)
    assert talk(console.url, speak) == aiohttp.WSCloseCode.POLICY_VIOLATION
    wait_for(lambda: console.refusals().get("browser: flood", 0) > before, "the count")


def test_only_so_many_browsers_are_let_in(console: Console) -> None:
    async def speak(session: aiohttp.ClientSession, url: str) -> int:
        others = [await connect(session, url) for _ in range(3)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(session, url)
        async with session.get(f"{url}session", params={"origin": url.rstrip("/")}) as reply:
            said = reply.status
        for each in others:
            await each.close()
        assert said == refused.value.status
        return said

    wait_for(lambda: not console.node._server._console.browsers, "the end of the others")
    assert talk(console.url, speak) == 503


def test_who_comes_back_is_let_in_although_all_places_are_taken(console: Console) -> None:
    """Their lost connection has one, until it is known to be lost. It is one page's alone."""

    async def speak(session: aiohttp.ClientSession, url: str) -> None:
        headers = {"Origin": url.rstrip("/")}
        back = f"{url}connect?session={SESSION}"
        taken = [await connect(session, url) for _ in range(3)]
        for last, socket_ in zip("f12", taken, strict=True):
            await socket_.send_json({**HELLO, "session": SESSION[:-1] + last})
            await answer(socket_, "welcome")
        async with session.ws_connect(back, headers=headers) as again:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(back, headers=headers)
            await again.send_json({**HELLO, "session": SESSION[:-1] + "9"})
            assert (await answer(again, "refused"))["detail"] == "a connection has one session"
            await again.send_json(HELLO)
            await answer(again, "welcome")

    wait_for(lambda: not console.node._server._console.browsers, "the end of the others")
    talk(console.url, speak)


def test_at_the_end_no_browser_waits_for_another(
    ros: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may take its time: a computer that sleeps does not answer."""
    count, asked = 3, []
    all_are_asked = threading.Event()

    async def hang_up(self: browser_module.Browser, code: int, why: str) -> None:
        asked.append(self)
        while len(asked) < count:
            await asyncio.sleep(0.01)
        all_are_asked.set()

    monkeypatch.setattr(browser_module.Browser, "hang_up", hang_up)
    ending = Console(["nobody"])

    async def stay(session: aiohttp.ClientSession, url: str) -> None:
        kept = [await connect(session, url) for _ in range(count)]
        await asyncio.to_thread(ending.close)
        for each in kept:
            await each.close()

    talk(ending.url, stay)
    assert all_are_asked.is_set()


def test_a_mask_of_another_size_is_refused_and_the_request_stays_open(
    console: Console, camera: Camera
) -> None:
    camera.show_object()
    camera.ask()

    async def speak(session: aiohttp.ClientSession, url: str) -> None:
        async with connect(session, url) as socket_:
            await socket_.send_json(HELLO)
            requests: list[Any] = []
            while not requests:
                requests = (await answer(socket_, "state"))["trackers"][0]["requests"]
            key = requests[0]["key"]
            text = json.dumps({"type": "answer", "seq": 1, "request": key, "outcome": "mask"})
            runs = struct.pack("<I", 5)
            await socket_.send_bytes(struct.pack("<I", len(text)) + text.encode() + runs)
            done = await answer(socket_, "done")
            assert (done["ok"], done["code"]) == (False, "broken_mask")
            repeated = {"type": "answer", "seq": 2, "request": key, "outcome": "not_in_view"}
            for _ in range(3):  # as a page does whose connection was lost: it is done once
                await socket_.send_json(repeated)
                done = await answer(socket_, "done")
                assert (done["seq"], done["ok"], done["code"]) == (2, True, "not_in_view")

    talk(console.url, speak)
    assert camera.wait_corrected().applied
    assert len(camera.corrected()) == 1


def test_who_does_not_read_gets_no_queue(console: Console, camera: Camera) -> None:
    """A connection that stalls, to the last buffer, while the camera runs on."""

    async def speak(session: aiohttp.ClientSession, url: str) -> None:
        async with connect(session, url) as stalled, connect(session, url) as other:
            await stalled.send_json(HELLO)
            await stalled.send_json({"type": "watch", "tracker": camera.tracker.name})
            await other.send_json({**HELLO, "session": SESSION[::-1]})
            await other.send_json({"type": "watch", "tracker": camera.tracker.name})
            for _ in range(10):
                picture = await answer(other, "picture")
                await other.send_json({"type": "shown", "number": picture["number"]})
            clients = console.node._server._console.browsers
            assert len(clients) == 2
            assert all(len(client._replies) <= 1 for client in clients)

    wait_for(lambda: not console.node._server._console.browsers, "the end of the others")
    sent = console.count("frames sent")
    talk(console.url, speak)
    assert console.count("frames sent") - sent <= 12


def test_what_is_no_image_costs_its_picture_alone(console: Console, camera: Camera) -> None:
    """Messages that end too early, behind a header that can be read."""
    topic = f"{camera.tracker.ns}/image"

    async def speak(session: aiohttp.ClientSession, url: str) -> None:
        async with connect(session, url) as socket_:
            await socket_.send_json(HELLO)
            await socket_.send_json({"type": "watch", "tracker": camera.tracker.name})
            picture = await answer(socket_, "picture")
            camera.stop()
            before = refused()
            while refused() == before:  # once no mask has come for a while
                message = serialize_message(scene_message(camera.index))
                camera.tracker.probe._publishers[topic].publish(message[: len(message) // 2])
                await asyncio.sleep(0.1)
            camera.go()
            await socket_.send_json({"type": "shown", "number": picture["number"]})
            assert (await answer(socket_, "picture"))["number"] > picture["number"]

    def refused() -> int:
        return console.refusals().get(f"{camera.tracker.name}: image", 0)

    talk(console.url, speak)


def test_what_the_tracker_complains_about_is_shown(console: Console, camera: Camera) -> None:
    tracker = camera.tracker
    nothing = labels_message(np.zeros((9, 9), np.uint16), header(0))

    async def speak(session: aiohttp.ClientSession, url: str) -> None:
        async with connect(session, url) as socket_:
            await socket_.send_json(HELLO)
            detail = ""
            while "refused since the last report" not in detail:
                tracker.probe.publish(f"{tracker.name}/init_mask", nothing)
                detail = (await answer(socket_, "state"))["trackers"][0]["detail"]

    talk(console.url, speak)


# ---- who may use it


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for this machine, with its key beside it."""
    path = tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs openssl, to make a certificate")
    return path


def test_from_elsewhere_it_takes_the_token(
    ros: None, certificate: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Printed once, never logged; TLS by the parameters."""
    key = certificate.parent / "key.pem"
    console = Console(["nobody"], address="0.0.0.0", certificate=str(certificate), key=str(key))
    try:
        output = capfd.readouterr()
        (token,) = (
            line.split("#token=")[1] for line in output.out.splitlines() if "#token=" in line
        )
        assert token not in output.err
        url = f"https://127.0.0.1:{console.node.port}/"

        async def speak(session: aiohttp.ClientSession, url: str) -> None:
            origin = {"Origin": url.rstrip("/")}
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect(session, url)
            assert refused.value.status == 401
            async with session.get(f"{url}session", params={"origin": url.rstrip("/")}) as reply:
                assert reply.status == 401
            for body, headers in ((token[:-1], origin), ("", origin), (token, {})):
                async with session.post(f"{url}session", data=body, headers=headers) as reply:
                    assert reply.status == 403
            async with session.post(f"{url}session", data=token, headers=origin) as reply:
                assert reply.status == 204
                cookie = reply.headers["Set-Cookie"]
                assert token not in cookie
                for word in ("HttpOnly", "SameSite=Strict", "Secure"):
                    assert word in cookie
            assert (await state_of(session, url))["trackers"]

        talk(url, speak, certificate)
        assert console.refusals()["browser: token"] == 2
        assert console.refusals()["browser: no token"] == 1
        later = capfd.readouterr()
        assert token not in later.out + later.err
    finally:
        console.close()


def test_any_token_can_be_opened_by_the_address_that_is_printed(
    ros: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also one with characters that mean something in an address."""
    token = "a+b c&d%20e=f#g/h?"
    (tmp_path / "token").write_text(token)
    Console(["nobody"], token_file=str(tmp_path / "token")).close()
    (fragment,) = (line.split("#", 1)[1] for line in capfd.readouterr().out.splitlines())
    assert parse_qs(fragment) == {"token": [token]}


def test_headers_that_are_no_text_are_refused_as_wrong_ones(ros: None, tmp_path: Path) -> None:
    """Before anybody has shown the token: it costs the console no failure."""
    console = Console(["nobody"], token_file=str(tmp_path / "token"))
    port = console.node.port
    own, broken = f"127.0.0.1:{port}".encode(), b"\xff\xfe"
    cookie = f"lazyxmem_operator_{port}=".encode() + broken

    def status(path: bytes, *, host: bytes = own, origin: bytes = b"http://" + own) -> int:
        lines = [b"GET /%s HTTP/1.1" % path, b"Host: " + host, b"Origin: " + origin]
        lines += [b"Cookie: " + cookie, b"Connection: close", b"", b""]
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
            connection.sendall(b"\r\n".join(lines))
            return int(connection.recv(65536).split(b" ", 2)[1])

    try:
        assert status(b"session?origin=http://" + own) == status(b"connect") == 401
        assert status(b"connect", origin=broken) == 403
        assert status(b"session", host=broken) == 421
        assert console.count("failed") == 0
    finally:
        console.close()


def test_what_cannot_be_served_is_said_in_one_line(ros: None, console: Console) -> None:
    for values, fault in (
        ({"port": console.node.port}, "port"),
        ({"address": "256.1.1.1", "port": 0}, "address"),
        ({"certificate": "cert.pem"}, "belong together"),
        ({"token_file": "/dev/null/token"}, "token_file"),
    ):
        with pytest.raises(NodeStartError, match=fault):
            OperatorNode(parameter_overrides=parameters(**values))


def test_ctrl_c_ends_it_cleanly(start: Callable[..., Any]) -> None:
    node = start("operator", {"port": 0}, fresh=True)
    wait_for(lambda: "the operator's page is at" in node.log, "the page")
    assert node.stop() == 0
    assert "Traceback" not in node.log
