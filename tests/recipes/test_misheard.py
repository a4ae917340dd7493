"""Misheard requests: what a phoneme head takes for what, and what is written down of it."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "tiny"))

from misheard import answerable, instead_of, likeliest_words, pronounced, spoken_phonemes

from kimi_audio.generation.lattice import PronunciationTree, word_lattice
from kimi_audio.pronunciation import Lexicon
from kimi_audio.tokenizer.phonemes import CLASSES

WORDS = {"capital": "kQpxtxl", "of": "xv", "hungary": "hAGgRi", "hungry": "hAGgri", "greece": "gris", "grief": "grif"}
TREE = PronunciationTree(Lexicon(WORDS, dict.fromkeys(WORDS, 100)))


def sure(letter: str) -> np.ndarray:
    frame_C = np.full(len(CLASSES) + 1, -9.0)
    frame_C[CLASSES[letter]] = -0.01
    return frame_C


def heard(phonemes: str, bank: dict) -> str:
    return likeliest_words(word_lattice(pronounced(phonemes, bank, random.Random(0)), TREE), TREE)


def test_what_is_heard_clearly_is_written_as_it_was_said():
    clear = {letter: [[sure(letter)]] for letter in CLASSES}
    assert heard("kQpxtxlxvhAGgRi", clear) == "capital of hungary"


def test_phonemes_that_sound_like_others_make_other_words():
    confused = {**{letter: [[sure(letter)]] for letter in CLASSES}, "s": [[sure("f")]], "R": [[sure("r")]]}
    assert heard("kQpxtxlxvhAGgRi", confused) == "capital of hungry"
    assert heard("kQpxtxlxvgris", confused) == "capital of grief"


def test_frames_of_a_sound_are_read_as_its_phonemes():
    blank = np.full(len(CLASSES) + 1, -9.0)
    blank[0] = -0.01
    log_probs_TC = np.stack([blank, sure("g"), sure("g"), sure("r"), blank, sure("r")])
    letters, frames = spoken_phonemes(log_probs_TC)
    assert letters == "grr" and len(frames) == 3


@pytest.mark.parametrize(
    ("said", "taken", "places"),
    [
        ("gris", "gris", [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ("gris", "grif", [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ("gris", "gis", [(0, 1), (1, 1), (1, 2), (2, 3)]),
    ],
)
def test_each_phoneme_knows_what_stands_for_it(said, taken, places):
    found = [(letter, place.start, place.stop) for letter, place in instead_of(said, taken)]
    assert found == [(letter, *place) for letter, place in zip(said, places, strict=True)]


@pytest.mark.parametrize(
    ("kind", "item", "asked", "words", "can_be"),
    [
        ("capital", "capital of Greece", "what is the capital of greece", "what is the capital of grief", True),
        ("capital", "capital of Greece", "what is the capital of greece", "the cattle grief", False),
        ("arithmetic", "2 + 5", "what is two plus five", "what is to plus five", False),
        ("arithmetic", "2 + 5", "what is two plus five", "what he's two plus five", True),
        ("spelling", "napkin", "spell napkin", "spell knock", False),
        ("repeat", "Milk is white.", "can you repeat this milk is white", "can you eat this milk is white", True),
        ("repeat", "Milk is white.", "can you repeat this milk is white", "can you repeat this milk is wide", False),
    ],
)
def test_nobody_is_asked_what_cannot_be_known_any_more(kind, item, asked, words, can_be):
    assert answerable({"kind": kind, "item": item}, asked, words) is can_be
