"""`lopsided serve`, asked by a real client."""

import errno
import json
import os
import socket
import time
import urllib.error
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
from lopsided.jobs.serve import make_app, predict_records
from tests.jobs.test_folders_of_data import save_images
from tests.serving import ask, served
from tests.tools import write_texts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    data = write_texts(folder / "texts.jsonl")
    assert main(["fit", str(data), "--epochs", "3", "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def port(run: Path) -> Iterator[int]:
    limits = {"SECONDS": 2, "MOST_BYTES": 10_000, "MOST_BYTES_HELD": 25_000}
    with served(run, run.parent / "log", **limits) as port:
        yield port
        assert "Traceback" not in (run.parent / "log").read_text()


def test_eight_clients_at_once_get_what_the_model_says(run: Path, port: int) -> None:
    model = lopsided.load(run)
    questions = [[f"the goal {i}", f"a song and bread {i}"] for i in range(40)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda rows: ask(port, "/predict", {"rows": rows})["predictions"], questions))
    assert answers == [model.predict(rows) for rows in questions]
    assert {label for answer in answers for row in answer for label in row["labels"]} >= {"sport", "music", "food"}


def test_rows_may_be_objects_as_in_a_file(run: Path, port: int) -> None:
    rows = [{"text": "a goal"}, {"text": "bread", "labels": ["of no", "interest"]}]
    answer = ask(port, "/predict", {"rows": rows})["predictions"]
    assert answer == lopsided.load(run).predict(["a goal", "bread"])


def test_of_no_rows_there_are_no_predictions(run: Path) -> None:
    assert lopsided.load(run).predict([]) == []
    with pytest.raises(ValueError, match=r"expected a list of texts or an array .* got dict"):
        lopsided.load(run).predict(["a goal", {"text": "a goal"}])


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
    assert "serve takes texts and tables, which the model" in capsys.readouterr().err


def test_rows_that_were_joined_in_training_are_answered_one_by_one(folder: Path) -> None:
    (path := Path("joined.csv")).write_text("id,text,labels\n" + "1,a goal,sport\n1,a goal,news\n2,bread,food\n" * 9)
    assert main(["fit", str(path), "--join-by", "id", "--valid", "0", "--out", "joined"]) == 0
    predictor = Predictor.open(Path("joined"))
    assert predict_records(predictor, ["bread", "a goal"]) == predictor.predict(["bread", "a goal"])
    assert len(predict_records(predictor, [{"id": 1, "text": "bread"}, {"id": 1, "text": "a goal"}])) == 2


@pytest.mark.slow
def test_a_request_cannot_name_images_of_the_machine(folder: Path) -> None:
    Path("pictures").mkdir()
    save_images(Path("pictures"))
    assert main(["fit", "pictures", "--valid", "0", "--model", "patches(patches=20)", "--out", "images"]) == 0
    with pytest.raises(UserError, match="which the model patches does not: use lopsided predict"):
        make_app(Predictor.open(Path("images")))


def test_the_schema_names_the_labels(port: int) -> None:
    schema = ask(port, "/schema")
    assert schema["labels"] == ["food", "music", "sport"]
    assert schema["loss"] == "asl"


BAD: dict[str, tuple[int, Any]] = {
    "half of an object": (422, b"{"),
    "deep": (422, b"[" * 9000),
    "no UTF-8": (422, b'{"rows": ["caf\xe9"]}'),
    "a huge number": (422, b'{"rows": [' + b"9" * 9000 + b"]}"),
    "a list": (422, [["a"]]),
    "no rows": (422, {"rows": []}),
    "rows by another name": (422, {"row": ["a"]}),
    "rows that are one text": (422, {"rows": "a text"}),
    "a number": (422, {"rows": [3]}),
    "nothing": (422, {"rows": [None]}),
    "of two kinds": (422, {"rows": ["a", {"text": ["b"]}]}),
    "numbers for texts": (422, {"rows": [[1.5, 2]]}),
    "numbers beyond all": (422, b'{"rows": [[1e999, NaN]]}'),
    "another column": (422, {"rows": [{"words": "\x1b[31m\ud800"}]}),
    "too many bytes": (413, b'{"rows": ["' + b"a" * 10_000 + b'"]}'),
    "no such page": (404, None),
    "another method": (405, None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_one_sentence(port: int, name: str) -> None:
    status, content = BAD[name]
    path = {"no such page": "/a\x1b", "another method": "/predict"}.get(name, "/predict")
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(port, path.replace("\x1b", "%1b"), content)
    assert caught.value.code == status
    message = json.load(caught.value)["error"]
    assert message
    assert message.isprintable()
    assert len(message) <= 500
    assert ask(port, "/health") == {"status": "ok"}


def exchange(port: int, sent: bytes) -> bytes:
    """What comes back until the server closes the connection, though nothing more is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(2**16), b""))


def test_what_is_sent_too_slowly_is_cut_off(port: int) -> None:
    begun = time.monotonic()
    assert exchange(port, b"POST /predict HTTP/1.1\r\nHost: a\r\nX") == b""
    answer = exchange(port, b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"error":"the body was not there within 2 s"}')
    assert time.monotonic() - begun < 15
    answer = exchange(port, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /health")
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert exchange(port, b"\xff\0 nothing\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert ask(port, "/health") == {"status": "ok"}


def test_a_length_that_nobody_told_is_counted(port: int) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = exchange(port, head + b"2000\r\n" + b" " * 0x2000 + b"\r\n2000\r\n" + b" " * 0x2000 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_bodies_held_at_once_are_limited(port: int) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9001\r\n\r\n" + b" " * 9000
    with ThreadPoolExecutor(3) as clients:
        answers = list(clients.map(lambda _: exchange(port, head), range(3)))
    assert sorted(answer[9:12] for answer in answers) == [b"408", b"408", b"503"]
    assert ask(port, "/predict", {"rows": ["a goal"]})["predictions"]


def test_a_port_that_is_taken_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert main(["serve", str(run), "--port", str(number)]) == 2
    message = f"cannot listen at 127.0.0.1, port {number}: {os.strerror(errno.EADDRINUSE)}; choose --host and --port"
    assert capsys.readouterr().err == f"lopsided: {message}\n"
    assert main(["serve", str(run), "--host", "no.such.host.invalid"]) == 2
    assert "cannot listen at no.such.host.invalid, port 8000" in capsys.readouterr().err
