"""Conversations of two turns from the pairs of `questions.py`: "Slower, please.", "And of Germany?", "Double that."

    python recipes/tiny/conversations.py written > conversations_written.jsonl      # {"kind", "messages": [...]} a line
    python recipes/tiny/conversations.py lines --share piper:joe=800 --share … > lines.tsv
    python recipes/tiny/conversations.py manifests lines.tsv WAVS OUT

`lines` spreads the conversations over voices and prints what their user says, for a synthesiser: `name <TAB> voice
<TAB> speed <TAB> text`. What one voice says in several conversations is spoken once. `manifests` writes those
conversations whose user turns are all recorded, with written answers, as `conversations.train.jsonl` and `.dev.jsonl`.

Second answers are answers of other pairs, or the first one again; so nothing that the evaluations hold back is here
either. The same seed gives the same conversations.
"""

import argparse
import json
import operator
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from manifests import recorded
from numbers_in_words import in_words
from questions import SPOKEN_WORDS, Pair, held_back, pairs
from replies import name_of

AGAIN = (
    "Say that again more slowly.", "Slower, please.", "Can you say that more slowly?", "Please speak more slowly.",
    "Too fast. Say it slowly.", "Say it slower.", "Faster, please.", "Say that again faster.", "Say it faster.",
    "Can you say it a bit faster?", "Louder, please.", "Can you say that louder?", "Say it again, but louder.",
    "Please speak up.", "Could you repeat that?", "Say that again.", "Please repeat that.", "Once more, please.",
    "I did not hear you.", "What did you say?", "Pardon?", "Sorry, what was that?", "A little slower, please.",
    "Say it once more, but slowly.", "Again, but quicker.", "Repeat it quickly.", "Would you say it a bit louder?",
)  # fmt: skip
OTHER = ("And {}?", "What about {}?", "How about {}?")
OTHER_OF_ITS_KIND = {
    "capital": "And of {}?", "currency": "And in {}?", "language": "And in {}?", "opposite": "And of {}?",
    "plural": "And of {}?", "rhyme": "And with {}?",
}  # fmt: skip
SPELL = ("How do you spell it?", "How do you spell that?", "How is that spelled?", "Can you spell that?", "Spell that.")
OPPOSITE = ("And its opposite?", "What is its opposite?", "And the opposite?")
SUMS = {
    "+": ("Add {} to that.", "Plus {}?", "And plus {}?", "Now add {} to it.", "Add {} more."),
    "-": ("Take away {} from that.", "Minus {}?", "Subtract {} from that.", "Now take {} from it."),
    "*": ("Times {}?", "Multiply that by {}.", "Now multiply it by {}."),
    "/": ("Divide that by {}.", "Divided by {}?", "Now divide it by {}."),
}
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
NEXT = {
    "after": ("And after that?", "And the next one?", "What comes after that?"),
    "before": ("And before that?", "And the one before?", "What comes before that?"),
}
RECALL = {
    "asked": ("What did I just ask?", "What was my question?", "What did I ask you?"),
    "said": ("What did I just say?", "What did I say?"),
}
COUNTRY_KINDS = ("capital", "continent", "language", "currency")
WORD_KINDS = ("opposite", "plural", "rhyme", "spelling")
ANIMAL_KINDS = ("young", "sound", "legs", "group")
LONGEST_ANSWER = 12  # words; what is longer isn't asked for again


class Conversation(NamedTuple):
    kind: str
    first: Pair
    question: str
    answer: str

    @property
    def user_turns(self) -> tuple[str, str]:
        return self.first.question, self.question

    def messages(self, user: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
        """The messages, where `user` has type and content of the user's."""
        said = [("user", *user[0]), ("assistant", "text", self.first.answer),
                ("user", *user[1]), ("assistant", "text", self.answer)]  # fmt: skip
        return [{"role": role, "message_type": kind, "content": content} for role, kind, content in said]


class Course:
    """What may follow a pair: each method gives a second question with its answer, or None where its kind has none."""

    def __init__(self, made: list[Pair], rng: random.Random) -> None:
        self.rng = rng
        self.answers = {(pair.kind, pair.item): pair.answer for pair in made}
        self.others: dict[str, dict[str, str]] = {}  # what is asked → about what → answer
        for pair in made:
            if asked := topic(pair):
                self.others.setdefault(asked[0], {})[asked[1]] = pair.answer

    def again(self, pair: Pair) -> tuple[str, str] | None:
        """The same answer, louder, slower …, which writing does not show."""
        return (self.rng.choice(AGAIN), pair.answer) if len(pair.answer.split()) <= LONGEST_ANSWER else None

    def other(self, pair: Pair) -> tuple[str, str] | None:
        """The same about another country, word, animal …"""
        if not (asked := topic(pair)):
            return None
        relation, about = asked
        name = self.rng.choice([name for name in self.others[relation] if name != about])
        special = [OTHER_OF_ITS_KIND[relation]] if relation in OTHER_OF_ITS_KIND else []
        return self.rng.choice([*OTHER, *special]).format(name), self.others[relation][name]

    def spelled(self, pair: Pair) -> tuple[str, str] | None:
        """The word that was the answer, or was explained, letter by letter."""
        answer = pair.answer.lower().rstrip(".").split()
        words = {"opposite": answer[-1], "plural": answer[-1], "rhyme": answer[0], "definition": pair.item}
        return self._taught(SPELL, "spelling", words.get(pair.kind, ""))

    def opposite(self, pair: Pair) -> tuple[str, str] | None:
        return self._taught(OPPOSITE, "opposite", pair.item) if pair.kind in ("spelling", "definition") else None

    def following(self, pair: Pair) -> tuple[str, str] | None:
        """The day, month, letter or number beyond the answer."""
        before, _, _ = pair.item.rpartition(" ")  # "after", "number before"
        here = pair.answer.split(" comes ")[0]
        if pair.kind != "order" or before.split(" ")[-1] not in NEXT:
            return None
        name = here.lower() if before.startswith("number") else here
        return self._taught(NEXT[before.split(" ")[-1]], "order", f"{before} {name}")

    def summed(self, pair: Pair) -> tuple[str, str] | None:
        """More of it: the answer and a small number."""
        if pair.kind != "arithmetic":
            return None
        a, sign, b = pair.item.split(" ")
        result = OPERATIONS[sign](int(a), int(b))
        for sign in self.rng.sample(list(SUMS), len(SUMS)):
            for n in self.rng.sample(range(2, 11), 9):
                double = ("Double that.", "Double it.") if (sign, n) == ("*", 2) else ()
                wordings = [wording.format(in_words(n)) for wording in (*SUMS[sign], *double)]
                if follow := self._taught(wordings, "arithmetic", f"{result} {sign} {n}"):
                    return follow
        return None

    def recalled(self, pair: Pair) -> tuple[str, str] | None:
        """What was asked before: the whole question, or as often what it was about."""
        if pair.kind == "repeat":
            return None
        verb = "asked" if pair.question.endswith("?") else "said"
        follows = [(self.rng.choice(RECALL[verb]), f"You {verb}: {pair.question}")]
        if pair.kind in COUNTRY_KINDS and pair.item.startswith(pair.kind):
            wording = self.rng.choice(("Which country did I ask about?", "What country was that?"))
            follows.append((wording, f"You asked about {pair.item.split(' of ', 1)[1]}."))
        if pair.kind in (*WORD_KINDS, "definition"):
            follows.append(("Which word did I ask about?", f"You asked about the word {pair.item}."))
        if pair.kind in ANIMAL_KINDS:
            follows.append(("Which animal did I ask about?", f"You asked about {with_article(pair.item)}."))
        if pair.kind == "arithmetic":
            a, _, b = pair.item.split(" ")
            wordings = ("Which numbers did I say?", "What were the numbers?", "Which two numbers were they?")
            wording = self.rng.choice(wordings)
            follows.append((wording, f"You said {in_words(int(a))}, then {in_words(int(b))}."))
        return self.rng.choice(follows)

    def _taught(self, wordings: Sequence[str], kind: str, item: str) -> tuple[str, str] | None:
        answer = self.answers.get((kind, item))
        return (self.rng.choice(wordings), answer) if answer else None


def with_article(animal: str) -> str:
    return f"an {animal}" if animal[0] in "aeiou" else f"a {animal}"


def topic(pair: Pair) -> tuple[str, str] | None:
    """What is asked and about what ("capital", "France"), where the same can be asked about something else."""
    if pair.kind in COUNTRY_KINDS:
        relation, _, name = pair.item.partition(" of ")
        return relation, name
    if pair.kind in WORD_KINDS:
        return pair.kind, pair.item
    if pair.kind in ANIMAL_KINDS:
        return pair.kind, with_article(pair.item)
    if pair.kind == "unit":
        _, unit = pair.item.split(" ", 1)
        return unit, pair.question.partition(" are in ")[2].rstrip("?")
    return None


KINDS: dict[str, tuple[Callable[[Course, Pair], tuple[str, str] | None], int]] = {  # and how many there are of each
    "again": (Course.again, 1400), "other": (Course.other, 1500), "sum": (Course.summed, 1500),
    "recalled": (Course.recalled, 700), "spelled": (Course.spelled, 450), "opposite": (Course.opposite, 200),
    "next": (Course.following, 60),
}  # fmt: skip


def conversations(seed: int = 0) -> list[Conversation]:
    """All conversations, mixed; none asks in the words of the evaluations."""
    rng = random.Random(seed)
    asked, _ = held_back()
    firsts = [pair for pair in pairs() if pair.kind != "digits" and len(pair.question.split()) <= SPOKEN_WORDS]
    course, made = Course(firsts, rng), []
    for kind, (follow, count) in KINDS.items():
        found = ((pair, follow(course, pair)) for pair in evenly(firsts, rng))
        fitting = [Conversation(kind, pair, *turn) for pair, turn in found if turn and turn[0].lower() not in asked]
        made += fitting[:count]
    return rng.sample(made, len(made))


def evenly(made: list[Pair], rng: random.Random) -> list[Pair]:
    """All pairs in random order, but the kinds take turns for as long as they last."""
    seen: Counter[str] = Counter()
    numbered = []
    for pair in rng.sample(made, len(made)):
        seen[pair.kind] += 1
        numbered.append((seen[pair.kind], pair))
    return [pair for _, pair in sorted(numbered, key=lambda numbered: numbered[0])]


def lines(made: list[Conversation], shares: dict[str, int], seed: int = 0) -> Iterator[tuple[str, str, float, str]]:
    """Utterances (name, voice, speed, text) of as many conversations for each voice; speeds vary by ±15 %."""
    rng, turn, names = random.Random(seed), 0, set()
    for voice, count in shares.items():
        for _ in range(count):
            for text in made[turn % len(made)].user_turns:
                name = name_of(f"{voice}\t{text}")
                if name not in names:
                    names.add(name)
                    yield name, voice, round(rng.uniform(0.85, 1.15), 2), text
            turn += 1


def spoken(made: list[Conversation], lines: Path, wavs: Path) -> Iterator[dict]:
    """Rows of the conversations that a voice has recorded whole, one conversation in fifty for dev."""
    heard = {(row["speaker"], text): row for text, row in recorded(lines, wavs)}
    voices = dict.fromkeys(voice for voice, _ in heard)
    for number, conversation in enumerate(made):
        for voice in voices:
            rows = [heard[voice, text] for text in conversation.user_turns if (voice, text) in heard]
            if len(rows) == 2:
                yield {"kind": conversation.kind, "split": "dev" if number % 50 == 0 else "train", "speaker": voice,
                       "set": wavs.name, "duration": round(sum(row["duration"] for row in rows), 3),
                       "messages": conversation.messages([("audio", row["audio"]) for row in rows])}  # fmt: skip


def print_written(args: argparse.Namespace) -> None:
    for made in conversations(args.seed):
        messages = made.messages([("text", text) for text in made.user_turns])
        print(json.dumps({"kind": made.kind, "messages": messages}, ensure_ascii=False))


def print_lines(args: argparse.Namespace) -> None:
    shares = {voice: int(count) for voice, count in (share.rsplit("=", 1) for share in args.share)}
    for line in lines(conversations(args.seed), shares, args.seed):
        print(*line, sep="\t")


def write_manifests(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    rows = list(spoken(conversations(args.seed), args.lines, args.wavs))
    for split in ("train", "dev"):
        chosen = [row for row in rows if row["split"] == split]
        path = args.out / f"conversations.{split}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen), encoding="utf-8")
        print(f"{path.name}: {len(chosen)} conversations, {sum(row['duration'] for row in chosen) / 3600:.2f} h")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("written").set_defaults(run=print_written)
    second = commands.add_parser("lines")
    second.add_argument("--share", action="append", default=[], metavar="VOICE=COUNT", help="conversations of a voice")
    second.set_defaults(run=print_lines)
    third = commands.add_parser("manifests")
    for name in ("lines", "wavs", "out"):
        third.add_argument(name, type=Path)
    third.set_defaults(run=write_manifests)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
