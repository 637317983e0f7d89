"""Addresses to listen at, IPv4 and IPv6: with or without brackets, checked, and as they stand in an URL."""

from __future__ import annotations

import socket

from studio.errors import StudioError


def plain(host: str) -> str:
    """A host without the brackets of an IPv6 address."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def authority(host: str, port: int) -> str:
    """host:port as in an URL; an IPv6 address stands in brackets."""
    return f"[{plain(host)}]:{port}" if ":" in plain(host) else f"{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0 for any. Raises StudioError where there can be none."""
    if not 0 <= port < 2**16:
        raise StudioError(f"There is no port {port}.", "Give one from 1024 to 65535 with --port.", "--port")
    try:
        family, *_, found = socket.getaddrinfo(plain(host), port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(found, family=family)
    except (socket.gaierror, UnicodeError):
        hint = "Give 127.0.0.1, or one of this computer's own addresses, with --host."
        raise StudioError(f"{host} is no address of this computer.", hint, "--host") from None
    except PermissionError:
        hint = "Give one from 1024 to 65535 with --port."
        raise StudioError(f"Port {port} is kept for the system's own programs.", hint, "--port") from None
