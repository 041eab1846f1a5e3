"""Runs `lopsided serve`: rows are posted, labels and probabilities come back.

GET /health     {"status": "ok"}
GET /schema     the names of the labels, the rule, what rows must look like
POST /predict   {"rows": ["a text", ...]}, or objects as in a file of JSON lines: [{"age": 31, "colour": "red"}, ...],
                or embeddings: [[0.25, -1.5], ...]

Whatever else is asked, and whatever goes wrong, is answered by {"error": "one sentence"}; but for what is no HTTP, and
for connections beyond the limit, which uvicorn answers by 400 and 503 in plain text. No client can hold more of the
server than the limits below.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

from lopsided.data.excerpts import printable
from lopsided.data.inputs import Table, Texts
from lopsided.data.storage import UserError
from lopsided.jobs.predict import Prediction, Predictor, of_lines

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import JSONResponse

MOST_ROWS, MOST_BYTES = 10_000, 2**26  # of one request
MOST_BYTES_HELD, MOST_CONNECTIONS = 2**28, 1000  # of all requests at a time
SECONDS = 30  # until the head of a request is there, then until its body is
_LONGEST = 500  # characters of a message
_ALLOWED = {"/health": "GET", "/schema": "GET", "/predict": "POST"}


def run_server(predictor: Predictor, host: str, port: int) -> None:
    """Answers requests until the process is stopped. Raises UserError as `make_app` does, and for a busy port."""
    application = make_app(predictor)
    import uvicorn

    config = uvicorn.Config(application, http=_protocol(), limit_concurrency=MOST_CONNECTIONS)
    with _listener(host, port) as listener:
        uvicorn.Server(config).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]  # what follows says it again
        raise UserError(f"cannot listen at {host}, port {port}: {reason}; choose --host and --port") from None


def _protocol() -> type[asyncio.Protocol]:
    """Returns HTTP as h11 reads it, which limits the length of a request's head, and here its seconds as well."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class InTime(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_a_request()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._expect_a_request()

        def _expect_a_request(self) -> None:
            self.loop.call_later(SECONDS, self._cut_off, self.cycle)

        def _cut_off(self, last: object) -> None:
            if self.cycle is last:  # no other request has begun
                self.transport.close()

    return InTime


def make_app(predictor: Predictor) -> Any:
    """Returns the Starlette application.

    Raises UserError where Starlette or uvicorn is missing, and for a model of rows that no JSON holds.
    """
    encoder = predictor.model.encoder
    # Of images, a request could name any file of this machine.
    if getattr(encoder, "base", encoder).inputs not in (Texts, Table):
        raise UserError(f"serve takes texts and tables, which the model {encoder.name} does not: use lopsided predict")
    try:
        import uvicorn  # noqa: F401, to tell before anything listens
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ModuleNotFoundError:
        raise UserError("serve needs Starlette and uvicorn; install them with: pip install 'lopsided[serve]'") from None

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def schema(request: Request) -> JSONResponse:
        return JSONResponse(describe(predictor))

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        status, message = _status_of(error, request.url.path)
        # What is left of the body is not waited for.
        return JSONResponse({"error": printable(message, _LONGEST)}, status, {"Connection": "close"})

    endpoints = {"/health": health, "/schema": schema, "/predict": _Predictions(predictor).answer}
    routes = [Route(path, each, methods=[_ALLOWED[path]]) for path, each in endpoints.items()]
    return Starlette(routes=routes, exception_handlers={HTTPException: refuse, RequestError: refuse, Exception: refuse})


class RequestError(Exception):
    """Tells, in one sentence, why a request has no answer; status: of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _status_of(error: Exception, path: str) -> tuple[int, str]:
    """Returns the status of HTTP, and what is said."""
    if isinstance(error, RequestError):
        return error.status, str(error)
    status = getattr(error, "status_code", 500)
    if status == 404:
        return status, f"there is no {path}: ask {', '.join(_ALLOWED)}"
    if status == 405:
        return status, f"{path} takes {_ALLOWED[path]} alone"
    return status, "the server could not answer; its log tells why"


class _Predictions:
    """Answers requests for predictions; held: the bytes of all bodies that are in memory now."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.held = predictor, 0

    async def answer(self, request: Request) -> JSONResponse:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse

        if int(request.headers.get("content-length", 0)) > MOST_BYTES:
            raise _too_large()
        body = bytearray()
        try:
            await asyncio.wait_for(self._read(request, body), SECONDS)
            return JSONResponse({"predictions": await run_in_threadpool(predict_body, self.predictor, body)})
        except asyncio.TimeoutError:
            raise RequestError(408, f"the body was not there within {SECONDS} s") from None
        except (ValueError, UserError) as error:
            raise RequestError(422, str(error)) from None
        finally:
            self.held -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        from starlette.requests import ClientDisconnect

        try:
            async for part in request.stream():
                body += part
                self.held += len(part)
                if len(body) > MOST_BYTES:
                    raise _too_large()
                if self.held > MOST_BYTES_HELD:
                    raise RequestError(503, "too much is asked at once; ask again in a moment")
        except ClientDisconnect:
            raise RequestError(400, "the request ended before its body did") from None


def _too_large() -> RequestError:
    return RequestError(413, f"a request has at most {MOST_BYTES} bytes")


def predict_body(predictor: Predictor, body: bytes | bytearray) -> list[Prediction]:
    """Returns the predictions of the rows of a request's body. Raises ValueError and UserError for what has none."""
    return predict_records(predictor, _rows(body))


def _rows(body: bytes | bytearray) -> list[Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError('the body must be JSON, such as {"rows": ["a text"]}') from None
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or len(rows) > MOST_ROWS:
        raise ValueError(f'expected {{"rows": [...]}} with 1 to {MOST_ROWS} rows')
    return rows


def predict_records(predictor: Predictor, rows: list[Any]) -> list[Prediction]:
    """Returns the predictions of rows as they would stand in a file of JSON lines.

    A text alone is a row of texts, a list of numbers one of embeddings. Raises UserError for rows that cannot be read.
    """
    if all(isinstance(row, list) for row in rows):
        return predictor.predict(_vectors(rows))
    (column, *_) = *predictor.read_options.text_columns, "text"
    records = [{column: row} if isinstance(row, str) else row for row in rows]
    return of_lines(predictor, "".join(json.dumps(record) + "\n" for record in records))


def _vectors(rows: list[list[Any]]) -> list[list[float]]:
    numbers = all(isinstance(number, int | float) for row in rows for number in row)
    if not numbers or len(set(map(len, rows))) > 1:
        raise ValueError("lists must hold numbers, as many in every row")
    return rows


def describe(predictor: Predictor) -> dict[str, Any]:
    """Returns what a client must know."""
    model = predictor.model
    return {
        "model": model.encoder.name,
        "loss": model.method,
        "rule": predictor.decision.name,
        "labels": list(model.label_names),
        "rows": "texts, objects as they would stand in a file of JSON lines, or lists of numbers (embeddings)",
        "returns": {"labels": "names, the most probable first", predictor.values: "one for each of these labels"},
    }
