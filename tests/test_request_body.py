"""Bodies of requests end: by length and by time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from studio.request_body import BodyError, gather


async def parts(*chunks: bytes, pause: float = 0.0) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(pause)
        yield chunk


def test_a_body_is_gathered_whole() -> None:
    assert asyncio.run(gather(parts(b'{"a"', b": 1}"), 8)) == b'{"a": 1}'


@pytest.mark.parametrize(("chunks", "pause", "status"), [((b"12345", b"6789"), 0.0, 413), ((b"1",) * 40, 0.02, 408)])
def test_one_too_long_or_too_slow_is_refused(chunks: tuple[bytes, ...], pause: float, status: int) -> None:
    with pytest.raises(BodyError) as refused:
        asyncio.run(gather(parts(*chunks, pause=pause), 8 if not pause else 99, seconds=0.2))
    assert refused.value.status == status
