"""The order of a judging: who judges, with which prompt, how fast, and which addresses may be asked."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import OrderError

KEY = "STUDIO_JUDGE_KEY"
PROMPT = """Two assistants answered the same question. Decide which answer is better: right, complete, to the point.
The order of the answers and their length do not matter.

[Question]
{question}

[A good answer, for comparison]
{reference}

[Answer A]
{answer_a}

[Answer B]
{answer_b}

Reply with [[A]] if A is better, [[B]] if B is better, or [[C]] if they are equally good. Reply with nothing else."""


class JudgeOrder(BaseModel):
    """Who judges, and how fast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=500)
    model: str = Field(min_length=1, max_length=200)
    prompt: str = Field(PROMPT, max_length=20_000)
    rows: int = Field(100, ge=1, le=1000)
    per_minute: int = Field(120, ge=1, le=6000)
    minutes: float = Field(30, gt=0, le=24 * 60)
    timeout: float = Field(60, gt=0, le=600)


def order_of(settings: dict[str, Any]) -> JudgeOrder:
    """Raises OrderError: names a wrong setting, a prompt without both answers, a URL that may not be asked."""
    try:
        order = JudgeOrder.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0])
        raise OrderError(f"judge.{where}: {first['msg']}.", "Correct it.", f"judge.{where}") from error
    missing = [name for name in ("question", "answer_a", "answer_b") if f"{{{name}}}" not in order.prompt]
    if missing:
        raise OrderError(
            f"The judge's prompt has no place for {', '.join(missing)}.",
            "Write {question}, {answer_a} and {answer_b} where they belong; {reference} is optional.",
            "judge.prompt",
        )
    check_url(order.url)
    return order


def check_url(url: str) -> None:
    """Raise OrderError for what is no plain http(s) address, and for one that leads to a host's own services.

    Link-local addresses hand out a cloud's credentials. A key is sent without encryption to this computer only.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise OrderError(f"{url!r} is no address: {error}.", "Write it as https://host/v1.", "judge.url") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise OrderError(
            "The judge's address must be http or https, with a host and without a user, a query or a key in it.",
            f"Write it as https://host/v1; a key comes from {KEY} in the environment.",
            "judge.url",
        )
    try:
        found = socket.getaddrinfo(parts.hostname, port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OrderError(f"{parts.hostname} is not known: {error}.", "Check the address.", "judge.url") from error
    addresses = [ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in found]
    plain = [getattr(address, "ipv4_mapped", None) or address for address in addresses]
    if any(each.is_link_local or each.is_multicast or each.is_unspecified for each in plain):
        raise OrderError(
            f"{parts.hostname} leads to a service of the host itself, which is not asked.",
            "Give the address of a model server.",
            "judge.url",
        )
    if os.environ.get(KEY) and parts.scheme == "http" and not all(each.is_loopback for each in plain):
        raise OrderError(
            f"The key in {KEY} would travel unencrypted to {parts.hostname}.", "Use https, or unset it.", "judge.url"
        )
