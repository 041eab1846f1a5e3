"""Starts `lopsided serve` as a process of its own, and asks it."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SERVE = """
import sys
from lopsided.jobs import serve
for name, value in eval(sys.argv.pop()).items():
    assert hasattr(serve, name)
    setattr(serve, name, value)
from lopsided.__main__ import main
sys.exit(main())
"""


@contextmanager
def served(run: Path, log: Path, **limits: int) -> Iterator[int]:
    """Gives the port at which a run is served until the end; limits: of the module, which the tests make smaller."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-c", _SERVE, "serve", str(run), "--port", str(port), repr(limits)]
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        for _ in range(600):
            try:
                assert ask(port, "/health") == {"status": "ok"}
                break
            except urllib.error.URLError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
        yield port
        assert server.poll() is None, log.read_text()
    finally:
        server.terminate()
        server.wait()


def ask(port: int, path: str, content: Any = None) -> Any:
    """Asks for a page, or posts JSON, or bytes; raises HTTPError for an answer that is none."""
    body = None if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
