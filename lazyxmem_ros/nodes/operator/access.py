# SPDX-License-Identifier: Apache-2.0
"""Who may use the console: the address it listens on, its token, and checks of what browsers say.

A page of another site cannot use a browser that may (Host and Origin are checked), and nobody gets
in from another machine without the token. The token is in the fragment of the address that is
printed, which browsers never send; the page exchanges it for a cookie.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from lazyxmem_ros.basics import user_path

TOKEN_BYTES = 32
MIN_TOKEN_CHARACTERS = 16
TOKEN_MODE = 0o600
COOKIE_CONTEXT = b"lazyxmem_operator cookie"

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}
"""Of every answer."""


class AccessError(ValueError):
    """Settings with which the console cannot be opened safely; the text says what to do."""


def is_loopback(address: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The token that a file holds, which is made where it is not there. Raises AccessError."""
    try:
        path = user_path(path)
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, TOKEN_MODE)
            with os.fdopen(descriptor, "w") as file:
                file.write(make_token() + "\n")
        with path.open() as file:
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"token_file: {path} cannot be used: {error}") from error
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable():
        raise AccessError(
            f"token_file: {path} holds no token of {MIN_TOKEN_CHARACTERS} ASCII characters or "
            "more; remove it, and one is made"
        )
    return token


def make_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """What `certificate:` and `key:` give, or None without them; raises AccessError."""
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise AccessError("certificate and key (files in PEM) belong together; give both or none")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(user_path(certificate), user_path(key))
    except (OSError, ssl.SSLError) as error:
        raise AccessError(
            f"certificate {certificate!r} and key {key!r} cannot be used: {error}"
        ) from error
    return context


@dataclass(frozen=True)
class Access:
    """Decides about single requests.

    token: what must be known, "" = nothing. port: that is listened on. loopback: whether only this
    machine can connect. names: that it may be called by. given: those of them that a person gave.
    """

    token: str
    port: int
    loopback: bool
    secure: bool
    names: frozenset[str]
    given: frozenset[str]

    @classmethod
    def of(
        cls, address: str, port: int, *, token: str, secure: bool, names: Collection[str]
    ) -> Access:
        """Of what is listened on; `names` as a person gives them."""
        own = {"localhost", address.lower().rstrip(".")}  # which may be a name
        if not is_loopback(address):
            host = socket.gethostname().lower()
            own |= {host, host.split(".")[0], f"{host.split('.')[0]}.local"}
        given = frozenset(name.lower().strip().rstrip(".") for name in names)
        return cls(token, port, is_loopback(address), secure, given | own, given)

    @property
    def cookie_name(self) -> str:
        """Cookies are of a host, not of a port."""
        return f"lazyxmem_operator_{self.port}"

    @property
    def cookie(self) -> str:
        """What a browser that knows the token gets; it does not tell the token."""
        return hmac.new(self.token.encode(), COOKIE_CONTEXT, hashlib.sha256).hexdigest()

    def knows_token(self, given: str) -> bool:
        """Whether that is the token."""
        return _are_the_same(given, self.token)

    def has_cookie(self, given: str) -> bool:
        """Whether a browser with this cookie may look and act."""
        return not self.token or _are_the_same(given, self.cookie)

    def is_host(self, host: str) -> bool:
        """Whether a Host header names this machine: by an address, or a name that is known.

        A page of another site can have its own name lead here (DNS rebinding), but never an
        address.
        """
        name = _host_name(host)
        if name is None:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return address.is_loopback or not self.loopback or str(address) in self.names

    def is_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of the page that this host serves, or a proxy for it.

        A proxy may end TLS.
        """
        schemes = ["https"] if self.secure else ["http"]
        if _host_name(host) in self.given:
            schemes.append("https")
        return origin.lower() in [f"{scheme}://{host.lower()}" for scheme in schemes]


def _are_the_same(given: str, secret: str) -> bool:
    """Whether somebody gave the secret, without telling by the time it takes how much was right."""
    # What is no UTF-8 in a header has become surrogates, which cannot be encoded.
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())


def _host_name(host: str) -> str | None:
    """The name or address of a Host header, without port and brackets; None where it is none."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
    else:
        name, _, port = host.partition(":")
        if ":" in port:
            return None
    return name.lower().rstrip(".") or None
