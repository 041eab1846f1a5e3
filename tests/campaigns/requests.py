"""A server answers each request by JSON and refuses what is no HTTP; whatever was sent, it answers the next request."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from random import Random
from typing import Any

import lopsided
from lopsided.__main__ import main
from tests.campaigns.campaign import kind_of, randomness
from tests.campaigns.children import LONGEST, in_child
from tests.campaigns.mutations import damaged, text
from tests.campaigns.tampering import VALUES, changed
from tests.serving import served
from tests.tools import write_texts

_LIMITS = {"SECONDS": 1, "MOST_BYTES": 200_000, "MOST_BYTES_HELD": 400_000}
_ANSWERED = (200, 400, 404, 405, 408, 413, 422)


class Requests:
    """Asks one server, whose limits are small, in many wrong ways, and between them in the right one."""

    name = "requests"
    kinds: tuple[str, ...] = ("values", "bytes of JSON", "values", "bytes of JSON", "lines of HTTP", "large", "slow")

    def run(self, numbers: range, seed: int, where: Path) -> Iterator[tuple[int, str | None]]:
        write_texts(where / "texts.jsonl", 80)
        fitted = in_child(lambda: main(["fit", "texts.jsonl", "--out", "run"]), where)
        assert fitted.code == 0, fitted.err
        asked = ["a goal", "a song and bread"]
        known = {"predictions": lopsided.load(where / "run").predict(asked)}
        log = where / "log"
        with served(where / "run", log, **_LIMITS) as port:
            for number in numbers:
                before = log.stat().st_size
                fault = _MAKERS[kind_of(self, number)](port, randomness(seed, number))
                if not fault and _exchange(port, _post(json.dumps({"rows": asked}).encode())) != (200, known):
                    fault = "then a right request has another answer"
                if not fault and b"Traceback" in (said := log.read_bytes()[before:]):
                    fault = f"traceback in the log: {said[-300:]!r}"
                yield number, fault


def _post(body: bytes) -> bytes:
    return (
        f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    )


def _exchange(port: int, sent: bytes) -> tuple[int, Any] | None:
    """The status and the content that come back; None where the connection is closed without, or within."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        with suppress(BrokenPipeError, ConnectionResetError):  # it need not hear all that we say
            client.sendall(sent)
        try:
            answer = HTTPResponse(client)
            answer.begin()
            content = answer.read()
        except (ConnectionError, HTTPException):
            return None
    return answer.status, json.loads(content) if answer.headers["content-type"] == "application/json" else content


def fault_of(port: int, sent: bytes, http: bool = True) -> str | None:
    """What is wrong with the answer. http: it was asked by whole requests, which have JSON for an answer."""
    try:
        answer = _exchange(port, sent)
    except TimeoutError:
        return f"no answer to {sent[:300]!r}"
    if answer is None:
        return f"the connection is closed after {sent[:300]!r}" if http else None
    status, content = answer
    if status not in _ANSWERED or (http and not isinstance(content, dict)):
        return f"{status} {content!r:.300} to {sent[-300:]!r}"
    if status == 200 or not http:
        return None
    message = content.get("error")
    one_line = isinstance(message, str) and message.isprintable() and 0 < len(message) <= LONGEST
    return None if one_line and len(content) == 1 else f"error {content!r:.300}"


def _rows(random: Random) -> Any:
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: text(random),
        lambda: {"text": text(random), "labels": ["sport"]},
        lambda: [random.random(), 1],
        lambda: random.choice(VALUES)(),
    )
    kind = random.choice(kinds)
    return [kind() for _ in range(random.choice((1, 1, 3, 200)))]


def _values(port: int, random: Random) -> str | None:
    content, _ = changed({"rows": _rows(random)}, random)
    return fault_of(port, _post(json.dumps(content).encode()))


def _bytes(port: int, random: Random) -> str | None:
    return fault_of(port, _post(damaged(json.dumps({"rows": _rows(random)}).encode(), random)))


def _lines(port: int, random: Random) -> str | None:
    """A request with something wrong in its head, or in the whole of it."""
    whole = _post(json.dumps({"rows": [text(random)]}).encode())
    head, _, body = whole.partition(b"\r\n\r\n")
    sent = damaged(whole, random) if random.random() < 0.3 else damaged(head, random) + b"\r\n\r\n" + body
    return fault_of(port, sent, http=False)


def _large(port: int, random: Random) -> str | None:
    size = int(10 ** random.uniform(5, 7))
    piece = random.choice((b" ", b"[", b'"', b"1", b"1,", b'{"rows":', b"\xff", b"\0"))
    body = piece * (size // len(piece))
    if random.random() < 0.3:
        body = b'{"rows": ["' + body + b'"]}'
    if random.random() < 0.3:
        lines = [b"%x\r\n%b\r\n" % (len(part), part) for part in re.findall(rb"(?s).{1,65536}", body)]
        head = _post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        return fault_of(port, head + b"".join(lines) + b"0\r\n\r\n", http=False)
    return fault_of(port, _post(body), http=False) if random.random() < 0.8 else fault_of(port, body, http=False)


def _slow(port: int, random: Random) -> str | None:
    """A request of which a part never comes."""
    whole = _post(json.dumps({"rows": [text(random)]}).encode())
    return fault_of(port, whole[: random.randrange(len(whole))], http=False)


_MAKERS: dict[str, Callable[[int, Random], str | None]] = {
    "values": _values,
    "bytes of JSON": _bytes,
    "lines of HTTP": _lines,
    "large": _large,
    "slow": _slow,
}
