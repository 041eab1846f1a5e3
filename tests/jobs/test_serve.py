"""`lopsided serve`, asked by a real client."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lopsided
from lopsided.__main__ import main
from lopsided.data.storage import UserError
from lopsided.jobs.predict import Predictor
from lopsided.jobs.serve import predict_records
from tests.tools import write_texts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    data = write_texts(folder / "texts.jsonl")
    assert main(["fit", str(data), "--epochs", "3", "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lopsided", "serve", str(run), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                assert ask(f"{address}/health") == {"status": "ok"}
                break
            except urllib.error.URLError:
                assert server.poll() is None
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def ask(url: str, content: Any = None) -> Any:
    body = None if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
        return json.load(answer)


def test_eight_clients_at_once_get_what_the_model_says(run: Path, address: str) -> None:
    model = lopsided.load(run)
    questions = [[f"the goal {i}", f"a song and bread {i}"] for i in range(40)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda rows: ask(f"{address}/predict", {"rows": rows})["predictions"], questions))
    assert answers == [model.predict(rows) for rows in questions]
    assert {label for answer in answers for row in answer for label in row["labels"]} >= {"sport", "music", "food"}


def test_rows_may_be_objects_as_in_a_file(run: Path, address: str) -> None:
    rows = [{"text": "a goal"}, {"text": "bread", "labels": ["of no", "interest"]}]
    answer = ask(f"{address}/predict", {"rows": rows})["predictions"]
    assert answer == lopsided.load(run).predict(["a goal", "bread"])


def test_embeddings_are_lists_of_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = np.eye(2)[[0, 1] * 10]
    np.save("x.npy", vectors)
    np.save("x_y.npy", vectors.astype(int))
    assert main(["fit", "x.npy", "--valid", "0", "--out", "run"]) == 0
    predictor = Predictor.open(Path("run"))
    assert predict_records(predictor, [[1, 0], [0.0, 1.0]]) == predictor.predict(vectors[:2])
    for rows in ([[1, 0], [1]], [[1, "a"]], [[1, 0, 0]]):
        with pytest.raises((ValueError, UserError)):
            predict_records(predictor, rows)
    (folder / "rows.svm").write_text("0 0:1\n1 1:1\n" * 10)
    assert main(["fit", "rows.svm", "--valid", "0", "--epochs", "1", "--out", "sparse"]) == 0
    assert main(["serve", "sparse"]) == 2
    assert "serve takes texts and tables, but the model takes sparse inputs" in capsys.readouterr().err


def test_the_schema_names_the_labels(address: str) -> None:
    schema = ask(f"{address}/schema")
    assert schema["labels"] == ["food", "music", "sport"]
    assert schema["loss"] == "asl"


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, {"rows": []}, {"row": ["a"]}, {"rows": [3]}, {"rows": [{"words": "a"}]}]
)
def test_bad_requests_are_one_sentence(address: str, content: Any) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(f"{address}/predict", content)
    assert caught.value.code == 422
    message = json.load(caught.value)["error"]
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    assert ask(f"{address}/health") == {"status": "ok"}
