"""The n-grams of texts, against scikit-learn's own transformers of whole texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from lopsided.data.inputs import Texts
from lopsided.models.ngrams import NGrams

TEXTS = (
    "Cats eat, cats SLEEP; the cat sleeps.",
    "The dog\teats\n and eats",
    "İstanbul ΣΑΣ Σ \u017f ß \x1cfile\x85next\u2028line dog eats",
    "",
    " \u00a0 ",
    "a",
    "\x00 b\x1fc the cat",
)


@pytest.mark.parametrize("characters", [False, True])
def test_features_are_those_of_whole_texts(characters: bool) -> None:
    kinds = [HashingVectorizer(token_pattern=r"(?u)\b\w\w+\b", ngram_range=(1, 2), n_features=2**22, norm=None)]
    if characters:
        kinds.append(HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**22, norm=None))
    parts = []
    for kind in kinds:
        counts = kind.set_params(alternate_sign=False).transform(TEXTS)
        common = counts[:, np.flatnonzero(counts.getnnz(axis=0) >= 2)]
        parts.append(TfidfTransformer(sublinear_tf=True).fit_transform(common))
    expected = hstack(parts).toarray()
    encoder = NGrams.fit(Texts(TEXTS), characters=characters)
    for _ in range(2):  # of the counts that fit made, and anew
        indices, starts, values = encoder.encode(Texts(TEXTS)).batch(torch.arange(len(TEXTS)))
        ends = np.append(starts, len(indices))
        found = csr_array((values, indices, ends), shape=(len(TEXTS), len(encoder.filled))).toarray()
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert encoder._counted == (None, [])


def test_texts_without_a_word_have_no_features() -> None:
    encoder = NGrams.fit(Texts(("one two", "two one")), characters=True)
    assert len(encoder.encode(Texts(("", " \n"))).batch(torch.arange(2))[0]) == 0
