"""The spelling that CTC uses: frequent tokens only, blanks and repeats removed. Training itself: test_recipe.py."""

from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.text import TextTokenizer
from kimi_audio.training.ctc import LETTERS, MIN_COUNT, Spelling, class_error_rate, letter_classes, positions_needed

RANKS = {bytes([byte]): byte for byte in range(256)} | {b" c": 256, b" ca": 257, b" cat": 258, b" d": 259, b" do": 260}
TEXTS = ["cat"] * MIN_COUNT + ["dog"] * (MIN_COUNT - 1)


def spelling() -> Spelling:
    return Spelling(TextTokenizer(RANKS), TEXTS)


def test_rare_tokens_are_spelt_with_shorter_ones():
    spelled = spelling()
    assert [spelled.ids[c - 1] for c in spelled.encode("cat")] == [258]
    assert len(spelled.encode("dog")) == 4  # space, d, o, g: " do" was seen once too little
    assert spelled.encode("x") == spelled.encode("")  # never heard: left out


@given(words=st.lists(st.sampled_from(["cat", "dog"]), min_size=1, max_size=5), blanks=st.lists(st.booleans()))
def test_blanks_and_repeats_are_dropped(words, blanks):
    spelled, path, last = spelling(), [], 0
    for index, code in enumerate(spelled.encode(" ".join(words))):
        if code == last or (index < len(blanks) and blanks[index]):
            path.append(0)
        path += [code] * (1 + index % 3)
        last = code
    assert spelled.decode(path) == " ".join(words)


def test_equal_neighbours_need_a_blank_between_them():
    assert positions_needed([1, 2, 2, 3]) == 5


def test_letters_are_those_of_the_text():
    assert "".join(LETTERS[c - 1] for c in letter_classes("It's Me, again!")) == "it's me again"


def test_errors_count_for_each_class_that_was_said():
    assert class_error_rate([[1, 2, 3], [12]], [[1, 3], [12]]) == 0.25
    assert class_error_rate([[1, 2]], [[12]]) == 1.0
