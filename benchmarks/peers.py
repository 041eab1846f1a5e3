"""Trains a peer, or predicts with it, in an environment of its own: python peers.py PEER STEP FOLDER.

The folder has train and test rows, as .txt (the format of extreme classification) or as .jsonl (texts); the model is
written to FOLDER/model, and the best labels of each test row with their scores, five or for texts all, to
FOLDER/predicted.jsonl.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

TUNED = "LinearSVC, C chosen"
STRENGTHS = [2.0**power for power in range(-5, 6)]  # values of C, as many as the penalties that lopsided tries of texts


def rows_of(folder: Path, part: str) -> tuple[list[str], list[list[str]]]:
    """Texts, or the features of sparse rows as they stand there; and the labels of each."""
    if (folder / f"{part}.jsonl").exists():
        rows = [json.loads(line) for line in (folder / f"{part}.jsonl").open(encoding="utf-8")]
        return [row["text"] for row in rows], [list(map(str, row["labels"])) for row in rows]
    with (folder / f"{part}.txt").open() as file:
        next(file)
        pairs = [line.rstrip("\n").partition(" ") for line in file]
    return [rest for _, _, rest in pairs], [labels.split(",") if labels else [] for labels, _, _ in pairs]


def labels_of(folder: Path) -> list[str]:
    return sorted({label for row in rows_of(folder, "train")[1] for label in row})


def put(folder: Path, predicted: Iterable[Iterable[tuple[str, float]]]) -> None:
    """Writes the labels of each row, the best first, and their scores."""
    with (folder / "predicted.jsonl").open("w", encoding="utf-8") as file:
        for row in predicted:
            labels, scores = zip(*row, strict=True)
            file.write(json.dumps({"labels": labels, "probabilities": [*map(float, scores)]}) + "\n")


def put_best(folder: Path, classes: Any, scores: Any, best: int) -> None:
    """Writes the best of (rows, labels) scores."""
    import numpy as np

    order = np.argsort(-scores, axis=1)[:, :best]
    rows = zip(classes[order].tolist(), np.take_along_axis(scores, order, 1).tolist(), strict=True)
    put(folder, (zip(*row, strict=True) for row in rows))


def matrix(lines: list[str], width: int) -> Any:
    """A matrix of sparse rows, each of length 1."""
    import numpy as np
    from scipy import sparse

    cells = [[cell.split(":") for cell in line.split()] for line in lines]
    columns = np.array([int(column) for row in cells for column, _ in row], dtype=np.int32)
    values = np.array([float(value) for row in cells for _, value in row], dtype=np.float32)
    ends = np.cumsum([0, *map(len, cells)])
    made = sparse.csr_matrix((values, columns, ends), shape=(len(lines), width))
    lengths = np.sqrt(np.asarray(made.multiply(made).sum(1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(lengths, 1e-12)) @ made)


def width_of(folder: Path) -> int:
    with (folder / "train.txt").open() as file:
        return int(next(file).split()[1])


def scikit_learn(step: str, folder: Path, kind: str) -> None:
    """One model for each label; texts become TF-IDF of words and pairs of words, as in the README of the data."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer
    from sklearn.svm import LinearSVC

    inputs, labels = rows_of(folder, "train" if step == "train" else "test")
    is_text = (folder / "train.jsonl").exists()
    if step == "train":
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000) if is_text else None
        x = words.fit_transform(inputs) if words else matrix(inputs, width_of(folder))
        names = MultiLabelBinarizer(sparse_output=True)
        y = names.fit_transform(labels)
        one = LogisticRegression(C=10, solver="liblinear") if kind == "logistic regression" else LinearSVC()
        model = best_of(STRENGTHS, x, y) if kind == TUNED else OneVsRestClassifier(one).fit(x, y)
        (folder / "model").write_bytes(pickle.dumps((words, names.classes_, model)))
        return
    words, classes, model = pickle.loads((folder / "model").read_bytes())
    x = words.transform(inputs) if words else matrix(inputs, width_of(folder))
    put_best(folder, classes, model.decision_function(x), len(classes) if is_text else 5)


def best_of(strengths: Sequence[float], x: Any, y: Any) -> Any:
    """Fits an SVM for each strength to 9 of 10 rows, and the one with the best mAP on the rest again to all rows."""
    import numpy as np
    from sklearn.metrics import average_precision_score
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

    order = np.random.default_rng(0).permutation(x.shape[0])
    held, rest = np.split(order, [len(order) // 10])
    truth = y[held].toarray()
    some = truth.any(0)

    def value(strength: float) -> float:
        scores = OneVsRestClassifier(LinearSVC(C=strength)).fit(x[rest], y[rest]).decision_function(x[held])
        return float(average_precision_score(truth[:, some], scores[:, some]))

    return OneVsRestClassifier(LinearSVC(C=max(strengths, key=value))).fit(x, y)


def fasttext(step: str, folder: Path) -> None:
    """Binary losses, one for each label; a label is a number, since its name may have spaces."""
    import fasttext  # type: ignore[import-not-found]

    texts, labels = rows_of(folder, "train" if step == "train" else "test")
    if step == "train":
        numbers: dict[str, int] = {}
        lines = [
            " ".join([*(f"__label__{numbers.setdefault(name, len(numbers))}" for name in row), *text.split()])
            for text, row in zip(texts, labels, strict=True)
        ]
        (folder / "fasttext.txt").write_text("\n".join(lines), encoding="utf-8")
        model = fasttext.train_supervised(
            str(folder / "fasttext.txt"), loss="ova", wordNgrams=2, epoch=25, lr=0.5, bucket=200_000, verbose=0
        )
        model.save_model(str(folder / "model"))
        (folder / "names.json").write_text(json.dumps(list(numbers)))
        return
    names = json.loads((folder / "names.json").read_text())
    model = fasttext.load_model(str(folder / "model"))
    lines = [" ".join(text.split()) + "\n" for text in texts]
    labels, scores = model.f.multilinePredict(lines, len(names), 0.0, "strict")
    rows = zip(labels, scores, strict=True)
    put(folder, (zip((names[int(each.removeprefix("__label__"))] for each in row), p, strict=True) for row, p in rows))


def omikuji(step: str, folder: Path) -> None:
    """Parabel with three trees, its defaults."""
    import omikuji  # type: ignore[import-not-found]

    if step == "train":
        omikuji.Model.train_on_data(str(folder / "train.txt")).save(str(folder / "model"))
        return
    model = omikuji.Model.load(str(folder / "model"))
    rows, _ = rows_of(folder, "test")
    features = [[(int(c), float(v)) for c, _, v in (cell.partition(":") for cell in row.split())] for row in rows]
    put(folder, ([(str(label), score) for label, score in model.predict(row, top_k=5)] for row in features))


def napkinxc(step: str, folder: Path) -> None:
    """A probabilistic label tree, its defaults."""
    from napkinxc.models import PLT  # type: ignore[import-not-found]

    model = PLT(str(folder / "model"))
    if step == "train":
        model.fit_on_file(str(folder / "train.txt"))
        return
    model.load()
    found = model.predict_proba_for_file(str(folder / "test.txt"), top_k=5)
    put(folder, ([(str(label), p) for label, p in row] for row in found))


def libmultilabel(step: str, folder: Path) -> None:
    """Its linear trainer, one against all the rest: liblinear for each label, on two threads."""
    import libmultilabel.linear as linear  # type: ignore[import-not-found]
    from sklearn.preprocessing import MultiLabelBinarizer

    rows, labels = rows_of(folder, "train" if step == "train" else "test")
    x = matrix(rows, width_of(folder))
    if step == "train":
        names = MultiLabelBinarizer(sparse_output=True)
        model = linear.train_1vsrest(names.fit_transform(labels).tocsr(), x, verbose=False)
        (folder / "model").write_bytes(pickle.dumps((names.classes_, model)))
        return
    classes, model = pickle.loads((folder / "model").read_bytes())
    put_best(folder, classes, linear.predict_values(model, x), 5)


if __name__ == "__main__":
    peer, step, where = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if peer in ("LinearSVC", TUNED, "logistic regression"):
        scikit_learn(step, where, peer)
    else:
        {"fastText": fasttext, "omikuji": omikuji, "napkinXC": napkinxc, "LibMultiLabel": libmultilabel}[peer](
            step, where
        )
