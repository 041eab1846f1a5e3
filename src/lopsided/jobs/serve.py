"""Runs `lopsided serve`: rows are posted, labels and probabilities come back.

GET /health     {"status": "ok"}
GET /schema     the names of the labels, the rule, what rows must look like
POST /predict   {"rows": ["a text", ...]}, or objects as in a file of JSON lines: [{"age": 31, "colour": "red"}, ...],
                or embeddings: [[0.25, -1.5], ...]
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from lopsided.data.inputs import Images, SparseFeatures
from lopsided.data.pairs import Pairs
from lopsided.data.readers import read_inputs
from lopsided.data.storage import UserError
from lopsided.jobs.predict import Prediction, Predictor

MOST_ROWS, MOST_BYTES = 10_000, 2**26  # of one request


def make_app(predictor: Predictor) -> Any:
    """Returns the Starlette application.

    Raises UserError where Starlette is missing, and for a model of rows that no JSON holds.
    """
    if predictor.model.encoder.inputs in (SparseFeatures, Images, Pairs):
        kind = predictor.model.encoder.inputs.kind
        raise UserError(f"serve takes texts and tables, but the model takes {kind} inputs: use lopsided predict")
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import Request
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ModuleNotFoundError:
        raise UserError("serve needs Starlette and uvicorn; install them with: pip install 'lopsided[serve]'") from None

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def schema(request: Request) -> JSONResponse:
        return JSONResponse(describe(predictor))

    async def predict(request: Request) -> JSONResponse:
        if int(request.headers.get("content-length") or 0) > MOST_BYTES:
            return JSONResponse({"error": f"a request has at most {MOST_BYTES} bytes"}, 413)
        try:
            rows = _rows(await request.body())
            predictions = await run_in_threadpool(predict_records, predictor, rows)
        except (ValueError, UserError) as error:
            return JSONResponse({"error": " ".join(str(error).split())}, 422)
        return JSONResponse({"predictions": predictions})

    routes = [Route("/health", health), Route("/schema", schema), Route("/predict", predict, methods=["POST"])]
    return Starlette(routes=routes)


def _rows(body: bytes) -> list[Any]:
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

    A text alone is a row of texts, a list of numbers a row of embeddings. All others go through the reader of files, so
    that nothing is read in another way here than there. Raises UserError for rows that it cannot read.
    """
    if all(isinstance(row, list) for row in rows):
        return predictor.predict(_vectors(rows))
    options = predictor.read_options.model_copy(update={"format": "json"})
    (column, *_) = *options.text_columns, "text"
    records = [{column: row} if isinstance(row, str) else row for row in rows]
    with tempfile.NamedTemporaryFile(suffix=".jsonl", mode="w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
        file.flush()
        try:
            blocks = read_inputs(Path(file.name), options)
            return [prediction for inputs in blocks for prediction in predictor.stream(inputs)]
        except UserError as error:
            raise UserError(str(error).replace(file.name, "rows")) from None


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
        "returns": {"labels": "names, the most probable first", predictor.values: "one for each label"},
    }
