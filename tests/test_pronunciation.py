"""Words → phonemes: from the dictionary, put together from it, by rules; numbers and signs."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.errors import CheckpointError
from kimi_audio.pronunciation import NAMES, PHONEMES, SOUNDS, Lexicon, in_words, sound_out

LEXICON = Lexicon(
    {"the": "Dx", "cat": "kQt", "judge": "JAJ", "want": "want", "stop": "stap", "make": "mek", "rain": "ren",
     "bow": "bo", "twenty": "twEnti", "one": "wAn", "percent": "pRsEnt", "say": "se", "isn't": "IzInt", "a": "x"}
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The cat.", "Dx kQt."),
        ("THE CAT, the cat?", "Dx kQt, Dx kQt?"),
        ("cats judges cat's says", "kQts JAJxz kQts sez"),
        ("wanted stopped judged", "wantxd stapt JAJd"),
        ("making stopping wants", "mekIG stapIG wants"),
        ("rainbow", "renbo"),
        ("21%", "twEnti wAn pRsEnt"),
        ("isn’t “the” (cat) - the", "IzInt Dx, kQt, Dx"),
        ("USB", "yu Es bi"),
        ("www", "dAbxlyu dAbxlyu dAbxlyu"),
        ("A cat: C, A, T.", "x kQt, si, e, ti."),
    ],
)
def test_words_and_what_is_made_of_them(text: str, said: str) -> None:
    assert LEXICON.pronounce(text) == said


def test_frequent_words_are_likely_and_all_of_them_together_certain() -> None:
    lexicon = Lexicon(LEXICON.words, {"the": 90, "cat": 10})
    the, cat, bow = lexicon.log_frequencies(["the", "cat", "bow"])
    assert the > cat > bow
    assert sum(map(math.exp, lexicon.log_frequencies(lexicon.words))) == pytest.approx(1)


def test_digits_are_said_of_a_number_too_long_for_a_name() -> None:
    assert in_words("1" * 40).split() == ["one"] * 40


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$21", "twenty one dollars"),
        ("1,000 & 3.5", "one thousand and three point five"),
        ("the 3rd", "the third"),
        ("naïve", "naive"),
    ],
)
def test_numbers_and_signs_are_words(text: str, words: str) -> None:
    assert in_words(text).split() == words.split()


@pytest.mark.parametrize(
    ("word", "said"),
    [("blip", "blIp"), ("zate", "zet"), ("knosh", "naS"), ("fromma", "framx"), ("gheeter", "gitR"), ("vice", "vYs")],
)
def test_unknown_words_are_sounded_out(word: str, said: str) -> None:
    assert sound_out(word) == said


@given(st.text())
def test_any_text_becomes_phonemes_spaces_and_pauses(text: str) -> None:
    assert set(LEXICON.pronounce(text)) <= PHONEMES | set(" ,.?!")


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1))
def test_any_word_of_letters_has_a_sound(word: str) -> None:
    assert sound_out(word)


def test_rules_use_known_phonemes_only() -> None:
    assert PHONEMES.issuperset("".join([*SOUNDS.values(), *NAMES.values()]))


def test_files_come_back_and_broken_ones_are_told(tmp_path: Path) -> None:
    path = tmp_path / "pronunciations.txt"
    LEXICON.save(path)
    assert Lexicon.from_file(path).words == LEXICON.words
    path.write_text("# a comment\ncat kQt\ndog d0g\n")
    with pytest.raises(CheckpointError, match="line 3 is not a word and its phonemes"):
        Lexicon.from_file(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CheckpointError, match="can't read the pronunciations"):
        Lexicon.from_file(path)
    with pytest.raises(CheckpointError, match="can't read the pronunciations"):
        Lexicon.from_file(tmp_path / "none.txt")
