"""A model behind an OpenAI-style endpoint that judges answers: how it is asked, and which addresses may be."""

from __future__ import annotations

import ipaddress
import os
import socket
import urllib.request
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from studio.errors import OrderError, reason_of
from studio.knob import KNOBS, OPTIMISATION

KEY = "STUDIO_JUDGE_KEY"
CONNECT_SECONDS = 5.0


class EndpointOrder(BaseModel):
    """Which model is asked, and how fast."""

    model_config = KNOBS

    url: str = Field(min_length=1, max_length=500, title="Address", description="As https://host/v1.")
    model: str = Field(min_length=1, max_length=200, title="Model", description="Its name there.")
    per_minute: int = Field(120, ge=1, le=6000, title="Requests a minute", json_schema_extra=OPTIMISATION)
    """At most."""
    timeout: float = Field(60, gt=0, le=600, title="Patience", json_schema_extra=OPTIMISATION)
    """Seconds for one reply."""


def check_url(url: str, key: str = KEY, where: str = "judge.url") -> None:
    """Raise OrderError for what is no plain http(s) address, and for one that leads to a host's own services.

    Link-local addresses hand out a cloud's credentials. A key is sent without encryption to this computer only.
    key: the environment variable that holds it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise OrderError(f"{url!r} is no address: {error}.", "Write it as https://host/v1.", where) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        message = "The address must be http or https, with a host and without a user, a query or a key in it."
        hint = f"Write it as https://host/v1; a key comes from {key} in the environment."
        raise OrderError(message, hint, where)
    try:
        entries = socket.getaddrinfo(parts.hostname, port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OrderError(f"{parts.hostname} is not known: {reason_of(error)}.", "Check the address.", where) from error
    addresses = [ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in entries]
    plain = [getattr(address, "ipv4_mapped", None) or address for address in addresses]
    if any(address.is_link_local or address.is_multicast or address.is_unspecified for address in plain):
        hint = "Give the address of a model server."
        raise OrderError(f"{parts.hostname} leads to a service of the host itself, which is not asked.", hint, where)
    if os.environ.get(key) and parts.scheme == "http" and not all(address.is_loopback for address in plain):
        hint = "Use https, or unset it."
        raise OrderError(f"The key in {key} would travel unencrypted to {parts.hostname}.", hint, where)


def check_answers(url: str) -> None:
    """Raise OrderError where nobody listens at a checked address. Behind a proxy that is not known, and not asked."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        hint = "Start the judge's server, or correct its address."
        raise OrderError(f"Nothing answers at {url}: {error.strerror or error}.", hint, "judge.url") from error
