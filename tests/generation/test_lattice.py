"""The lattice against every way there is to say something, and against sounds that say one thing only."""

from itertools import groupby, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.generation import lattice as lattice_module
from kimi_audio.generation.lattice import PronunciationTree, word_lattice
from kimi_audio.pronunciation import Lexicon
from kimi_audio.tokenizer.phonemes import CLASSES, phoneme_classes

LEXICON = Lexicon({"tea": "ti", "the": "Dx", "a": "x", "eat": "it", "teat": "tit"}, {"the": 50, "a": 40, "tea": 9})
TREE = PronunciationTree(LEXICON)
HEARD = [0, *sorted(phoneme_classes("tiDx"))]


def frames(length: int, seed: int) -> np.ndarray:
    """Log-probabilities of noise over the blank and four phonemes."""
    logits = np.full((length, 1 + len(CLASSES)), -50.0)
    logits[:, HEARD] = 3 * np.random.default_rng(seed).standard_normal((length, len(HEARD)))
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


def spoken(text: str) -> np.ndarray:
    """Log-probabilities of phonemes that are certain, each a frame with a blank after it."""
    log_probs = np.full((2 * len(text), 1 + len(CLASSES)), -12.0, np.float32)
    log_probs[range(0, 2 * len(text), 2), phoneme_classes(text)] = 0
    log_probs[1::2, 0] = 0
    return log_probs


def best_by_paths(log_probs_TC: np.ndarray) -> float:
    """Score of the best way to say words of the lexicon, or nothing, found by trying all of them."""
    best = -np.inf
    classes_of = (tuple(phoneme_classes(phonemes)) for phonemes in LEXICON.words.values())
    said = dict(zip(classes_of, LEXICON.log_frequencies(LEXICON.words), strict=True))

    def frequency(classes: tuple[int, ...]) -> float:
        if not classes:
            return 0.0
        cuts = [said[word] + frequency(classes[len(word) :]) for word in said if classes[: len(word)] == word]
        return max(cuts, default=-np.inf)

    for path in product(HEARD, repeat=len(log_probs_TC)):
        classes = tuple(c for c, _ in groupby(path) if c)
        best = max(best, float(log_probs_TC[range(len(path)), path].sum()) + frequency(classes))
    return best


@given(length=st.integers(1, 5), seed=st.integers(0, 200))
def test_the_best_path_of_words_is_in_it(length: int, seed: int):
    log_probs_TC = frames(length, seed)
    lattice = word_lattice(log_probs_TC, TREE)
    worth_R = lattice.sounds_R + TREE.frequency_W[lattice.words_R]
    found = float((lattice.silence_T + lattice.ahead(worth_R)).max())
    # A phoneme may end one word and begin the next without a blank between, where paths join them into one.
    assert found >= best_by_paths(log_probs_TC) - 1e-4


def test_certain_sounds_leave_their_words_only():
    lattice = word_lattice(spoken("Dxtitti"), TREE, within=3)
    words = {(TREE.words[word], start) for word, start in zip(lattice.words_R, lattice.starts_R, strict=True)}
    assert words == {("the", 0), ("teat", 4), ("tea", 10)}
    assert set(lattice.ends_R) == {4, 10, 14}
    np.testing.assert_allclose(lattice.sounds_R, 0, atol=1e-6)
    assert list(lattice.words_R) == sorted(lattice.words_R)


def test_silence_has_no_words():
    log_probs = np.full((6, 1 + len(CLASSES)), -30.0, np.float32)
    log_probs[:, 0] = 0
    assert len(word_lattice(log_probs, TREE).words_R) == 0


def test_nothing_is_likelier_than_the_words_ahead_say():
    assert TREE.ahead_N[0] == pytest.approx(max(TREE.frequency_W))
    assert (TREE.ahead_N[TREE.parent_N] >= TREE.ahead_N).all()
    for word, phonemes in LEXICON.words.items():
        node = 0
        for wanted in phoneme_classes(phonemes):
            (node,) = [n for n in range(1, len(TREE.class_N)) if (TREE.parent_N[n], TREE.class_N[n]) == (node, wanted)]
        assert TREE.ahead_N[node] >= LEXICON.log_frequencies([word])[0]


def test_an_empty_lexicon_hears_nothing():
    assert len(word_lattice(frames(4, 0), PronunciationTree(Lexicon({}))).words_R) == 0


def test_noise_does_not_leave_more_words_than_can_be_handled(monkeypatch):
    monkeypatch.setattr(lattice_module, "MOST_WORDS", 5)
    few = word_lattice(frames(40, 1), TREE, 50)
    monkeypatch.undo()
    every = word_lattice(frames(40, 1), TREE, 50)
    assert len(few.words_R) == 5 < len(every.words_R)
    assert few.silence_T[-1] == every.silence_T[-1] and list(few.words_R) == sorted(few.words_R)
