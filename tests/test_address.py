"""Addresses to listen at, in the forms that people and URLs write them in."""

from __future__ import annotations

import http.client
import io
import re
import socket
from contextlib import redirect_stdout

import pytest

import app
from studio import address, page
from studio.errors import StudioError
from studio.ui.serving import Reach, launch

BOTH = [("::1", "[::1]:80"), ("[::1]", "[::1]:80"), ("127.0.0.1", "127.0.0.1:80"), ("localhost", "localhost:80")]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("host", "written"), BOTH)
def test_an_address_as_it_stands_in_an_url(host: str, written: str) -> None:
    assert address.authority(host, 80) == written
    if has_ipv6() or ":" not in host:
        with address.listen(host, 0) as listener, pytest.raises(OSError, match="in use"):
            address.listen(host, listener.getsockname()[1])


@pytest.mark.parametrize(("host", "port"), [("no such host", 0), ("a" * 300, 0), ("", 70000), ("127.0.0.1", -1)])
def test_what_is_no_address_is_said(host: str, port: int) -> None:
    with pytest.raises(StudioError) as refused:
        address.listen(host, port)
    assert refused.value.hint


@pytest.mark.skipif(not has_ipv6(), reason="this computer has no IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_a_page_on_ipv6_prints_an_address_that_opens(host: str, home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_PUBLIC", "")
    blocks = app.build()
    try:
        with redirect_stdout(io.StringIO()) as output:
            launch(blocks, Reach(host=host, password="right horse"), wait=False)
        printed = re.search(r"ready: http://(\S+):(\d+)/", output.getvalue())
        assert printed
        assert printed[1] == "[::1]", "localhost may be the name of IPv4's address alone"

        def ask(name: str) -> tuple[int, str]:
            connection = http.client.HTTPConnection("::1", int(printed[2]), timeout=30)
            connection.request(
                "POST",
                "/login",
                "username=owner&password=right+horse",
                {"Host": f"{name}:{printed[2]}", "Content-Type": "application/x-www-form-urlencoded"},
            )
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("set-cookie") or ""

        status, cookie = ask("[::1]")
        assert (status, f"-{printed[2]}=" in cookie) == (200, True), "the cookie's name tells two pages apart"
        assert ask("localhost")[0] == 200
        assert ask("evil.test")[0] == 400
        assert ask("[fe80::1]")[0] == (200 if host == "::" else 400), "a number is no name that could be bound anew"
    finally:
        blocks.close(verbose=False)


def test_a_computer_without_ipv4_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def listen(host: str, port: int) -> socket.socket:
        if ":" not in host:
            raise StudioError("This computer has no such address.", "", "--host")
        return socket.socket()

    monkeypatch.setattr(address, "listen", listen)
    for host in ("::1", "127.0.0.1"):
        with pytest.raises(StudioError, match=r"no address 127\.0\.0\.1, by which a free port"):
            page.check_address(host, None)
