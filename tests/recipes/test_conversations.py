"""The tiny recipe's conversations of two turns: what follows is right, and the spoken ones come back as a manifest."""

import json
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "tiny"))

from conversations import KINDS, Conversation, Course, conversations, lines, topic, write_manifests
from questions import Pair, held_back, pairs

from kimi_audio.data.manifest import read_conversations

SHARES = {"piper:joe": 30, "flite:slt": 20}


class First:
    """Instead of a random choice, the first."""

    def choice(self, options):
        return options[0]

    def sample(self, options, count):
        return list(options)[:count]


@pytest.fixture(scope="module")
def made() -> list[Conversation]:
    return conversations()


@pytest.fixture(scope="module")
def course() -> Course:
    return Course(pairs(), First())  # type: ignore[arg-type]


def test_there_are_enough_of_each_kind_and_no_two_are_the_same(made):
    assert Counter(one.kind for one in made) == {kind: count for kind, (_, count) in KINDS.items()}
    assert len({one.user_turns for one in made}) == len(made) == 5810


def test_the_same_seed_gives_the_same(made):
    assert conversations(0) == made != conversations(1)
    assert list(lines(made, SHARES)) == list(lines(made, SHARES))


def test_what_is_said_again_is_said_word_for_word(made):
    assert all(one.answer == one.first.answer for one in made if one.kind == "again")


@pytest.mark.parametrize(
    ("follow", "kind", "item", "question", "answer"),
    [
        ("other", "opposite", "hot", "And cold?", "The opposite of cold is hot."),
        ("other", "sound", "cow", "And a dog?", "A dog barks."),
        ("spelled", "opposite", "hot", "How do you spell it?", "The word cold is spelled C, O, L, D."),
        ("spelled", "rhyme", "cat", "How do you spell it?", "The word hat is spelled H, A, T."),
        ("spelled", "definition", "river", "How do you spell it?", "The word river is spelled R, I, V, E, R."),
        ("opposite", "spelling", "hot", "And its opposite?", "The opposite of hot is cold."),
        ("following", "order", "after Monday", "And after that?", "Wednesday comes after Tuesday."),
        ("following", "order", "number before five", "And before that?", "Three comes before four."),
        ("summed", "arithmetic", "1 + 2", "Add two to that.", "Three plus two is five."),
        ("recalled", "arithmetic", "1 + 2", "What did I just ask?", "You asked: {}"),
    ],
)
def test_what_follows(follow, kind, item, question, answer, course):
    pair = next(pair for pair in pairs() if (pair.kind, pair.item) == (kind, item) and pair.question.endswith("?"))
    assert getattr(course, follow)(pair) == (question, answer.format(pair.question))


def test_a_sum_goes_on_with_its_result(made):
    for one in made:
        if one.kind == "sum":
            result = one.first.answer.split(" is ")[1].rstrip(".")
            assert one.answer.lower().startswith(f"{result} ")


@pytest.mark.parametrize(
    ("pair", "about"),
    [
        (Pair("capital", "capital of the Bahamas", "", ""), ("capital", "the Bahamas")),
        (Pair("capital", "country of Vienna", "", ""), ("country", "Vienna")),
        (Pair("young", "elephant", "", ""), ("young", "an elephant")),
        (Pair("unit", "3 hour in minutes", "How many minutes are in three hours?", ""),
         ("hour in minutes", "three hours")),
        (Pair("smalltalk", "Hello.", "Hi.", ""), None),
    ],
)  # fmt: skip
def test_topic(pair, about):
    assert topic(pair) == about


def test_nothing_that_is_held_back_is_taught(made):
    asked, unseen = held_back()
    taught = {pair.answer for pair in pairs()}
    assert not asked & {text.lower() for one in made for text in one.user_turns}
    assert not unseen & {one.first.item for one in made}
    assert all(one.answer in taught for one in made if one.kind != "recalled")


def test_a_voice_says_each_text_once_and_both_turns(made):
    utterances = list(lines(made, SHARES))
    names, spoken = [name for name, *_ in utterances], [(voice, text) for _, voice, _, text in utterances]
    assert len(names) == len(set(names)) == len(set(spoken)) < 100
    for voice, some in (("piper:joe", made[:30]), ("flite:slt", made[30:50])):
        assert {text for by, text in spoken if by == voice} == {text for one in some for text in one.user_turns}


def test_recorded_conversations_come_into_the_manifests(made, tmp_path):
    utterances = list(lines(made, {"piper:joe": 60}))
    table = tmp_path / "lines.tsv"
    table.write_text("".join("\t".join(map(str, line)) + "\n" for line in utterances))
    wavs = tmp_path / "wavs"
    wavs.mkdir()
    lost = made[3].question  # for want of one recording a conversation is left out
    said = {str(wavs / f"{name}.wav"): text for name, _, _, text in utterances if text != lost}
    for audio in said:
        soundfile.write(audio, np.zeros(4000, np.int16), 8000)
    write_manifests(Namespace(lines=table, wavs=wavs, out=tmp_path / "out", seed=0))
    for split in ("train", "dev"):
        path = tmp_path / "out" / f"conversations.{split}.jsonl"
        talks = read_conversations(path)
        assert all([message.type for message in talk] == ["audio", "text", "audio", "text"] for talk in talks)
        read = [(said[asked.content], answer.content, said[then.content], last.content)
                for asked, answer, then, last in talks]  # fmt: skip
        expected = [one for number, one in enumerate(made) if (number % 50 == 0) == (split == "dev")]
        assert read == [(one.first.question, one.first.answer, one.question, one.answer)
                        for one in expected if {*one.user_turns} <= {*said.values()}]  # fmt: skip
        row = json.loads(path.read_text().splitlines()[0])
        assert (row["split"], row["speaker"], row["duration"]) == (split, "piper:joe", 1.0)
