import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save, save_file
from torch import Tensor, nn

pytest.importorskip("tokenizers")

from lopsided.data.inputs import Texts
from lopsided.data.storage import UserError
from lopsided.models.static import Static
from lopsided.nn.head import LinearHead
from lopsided.targets import SparseTargets
from tests.models.tiny import WORDS, tokenizer

TEXTS = Texts(("alpha beta beta", "gamma unheard of", "", "nothing known", "six \ud800"))
ROWS = [[4, 5, 5], [6], [], [], [13]]  # without the token of what is unknown, and without those around a text
ALL = torch.arange(len(TEXTS))
TABLE = torch.randn(4 + len(WORDS), 8, generator=torch.Generator().manual_seed(0))


def write(folder: Path, name: str = "embeddings", normalize: bool | None = None, **more: Tensor) -> str:
    folder.mkdir(exist_ok=True)
    save_file({name: TABLE, **more}, folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    if normalize is not None:
        (folder / "config.json").write_text(json.dumps({"normalize": normalize}))
    return str(folder)


def means(table: Tensor) -> Tensor:
    return torch.stack([table[row].mean(0) if row else torch.zeros(8) for row in ROWS])


@pytest.mark.parametrize("name", ["embeddings", "embedding.weight"])
def test_features_are_means_of_vectors(tmp_path: Path, name: str) -> None:
    encoded = Static.fit(TEXTS, path=write(tmp_path, name)).encode(TEXTS)
    torch.testing.assert_close(encoded.batch(ALL)[0], means(TABLE))


def test_weights_and_a_mapping_belong_to_the_vectors(tmp_path: Path) -> None:
    weights, mapping = torch.rand(len(TABLE)), torch.randint(0, len(TABLE), (len(TABLE),))
    encoder = Static.fit(TEXTS, path=write(tmp_path, weights=weights.half(), mapping=mapping))
    expected = means(TABLE[mapping] * weights.half().float()[:, None])
    torch.testing.assert_close(encoder.encode(TEXTS).batch(ALL)[0], expected)


def test_the_files_may_lie_below_the_folder(tmp_path: Path) -> None:
    """As in the package wordllama, one folder for each, under names of their own."""
    write(tmp_path / "all")
    for name, place in (
        ("model.safetensors", "weights/some.safetensors"),
        ("tokenizer.json", "b/some_tokenizer_x.json"),
    ):
        (tmp_path / "of" / place).parent.mkdir(parents=True)
        (tmp_path / "all" / name).rename(tmp_path / "of" / place)
    encoded = Static.fit(TEXTS, path=str(tmp_path / "of")).encode(TEXTS)
    torch.testing.assert_close(encoded.batch(ALL)[0], means(TABLE))
    write(tmp_path / "of" / "two")
    with pytest.raises(UserError, match=r"got two/model\.safetensors, weights/some\.safetensors"):
        Static.fit(TEXTS, path=str(tmp_path / "of"))


@pytest.mark.parametrize(("config", "setting", "unit"), [(True, None, True), (True, False, False), (None, True, True)])
def test_rows_have_unit_length_on_request(tmp_path: Path, config: bool, setting: bool | None, unit: bool) -> None:
    features = Static.fit(TEXTS, path=write(tmp_path, normalize=config), norm=setting).encode(TEXTS).batch(ALL)[0]
    expected = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0]) if unit else means(TABLE).norm(dim=1)
    torch.testing.assert_close(features.norm(dim=1), expected)


@pytest.mark.parametrize("freeze", [True, False])
def test_a_stored_model_needs_no_folder(tmp_path: Path, freeze: bool) -> None:
    encoder = Static.fit(TEXTS, path=write(tmp_path / "e"), freeze=freeze, norm=True)
    body: Any = encoder.make_body()
    values, tensors = encoder.stored()
    (tmp_path / "e").rename(tmp_path / "gone")
    again = Static.from_stored(json.loads(json.dumps(values)), load(save(tensors)))
    network: Any = again.make_body()
    network.load_state_dict(load(save(body.state_dict())))
    batch = again.encode(TEXTS).batch(ALL)
    torch.testing.assert_close(network(*batch), body(*encoder.encode(TEXTS).batch(ALL)), rtol=0, atol=0)
    assert bool(tensors) == freeze


@pytest.mark.parametrize("freeze", [True, False])
def test_it_learns_which_words_stand_in_a_text(tmp_path: Path, freeze: bool) -> None:
    drawn = torch.rand(300, 4, generator=torch.Generator().manual_seed(0)) < 0.4
    inputs = Texts(tuple(" ".join(word for word, on in zip(WORDS, row, strict=False) if on) for row in drawn.tolist()))
    targets = SparseTargets.from_indices([row.nonzero()[:, 0].tolist() for row in drawn])
    path = write(tmp_path)
    encoder = Static.fit(inputs, path=path, freeze=freeze)
    torch.manual_seed(0)
    body = encoder.make_body()
    assert isinstance(body, nn.Module)
    assert any(weight.requires_grad for weight in body.parameters()) != freeze
    head, batch = LinearHead(8, 4, "bce", reduction="batchmean"), encoder.encode(inputs).batch(torch.arange(300))
    optimizer = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        head(body(*batch), targets).backward()
        optimizer.step()
    assert ((head.logits(body(*batch)) > 0) == drawn).double().mean() > 0.97
    torch.testing.assert_close(encoder.table, TABLE)  # what is fine-tuned is a copy


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="say which"):
        Static.fit(TEXTS)
    with pytest.raises(UserError, match=r"expected model\.safetensors, or one \*\.safetensors in it or below, which"):
        Static.fit(TEXTS, path=str(tmp_path))
    write(tmp_path, "something")
    with pytest.raises(UserError, match=r"named embeddings or embedding\.weight, got something"):
        Static.fit(TEXTS, path=str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"model\.safetensors: "):
        Static.fit(TEXTS, path=str(tmp_path))
    write(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer"):
        Static.fit(TEXTS, path=str(tmp_path))
