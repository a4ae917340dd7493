"""Question and answer pairs of the kind a voice assistant gets, made from the tables in `text/`.

    python recipes/tiny/questions.py > questions_written.jsonl             # also as conversations ("messages")
    python recipes/tiny/questions.py --texts texts.tsv > …                 # more to spell and to say, from these texts
    python recipes/tiny/questions.py --as-heard > questions_heard.jsonl    # as a transcript may have them: no capitals
    python recipes/tiny/questions.py --share piper:joe=800 > lines.tsv     # some of them as utterances to synthesise
    python recipes/tiny/questions.py --chat chat.jsonl --share …           # the prompts of `chat.py` instead

Every pair has an *item*, what it is about ("capital of France", "7 + 5"); items of `evaluation/questions.jsonl` and
`evaluation/range.jsonl` that are marked unseen never appear here, and no question appears here in the words of these
evaluations. What can only be known (capitals, opposites, the length of a month) is unseen in `questions.jsonl`; in the
range, which the model is to be reliable in, it is what follows from a rule: sums, spelling, units, sentences to repeat.
The same arguments give the same lines.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

from numbers_in_words import in_words

HERE = Path(__file__).parent
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip
COUNTRY_WORDINGS = {
    "capital": ("What is the capital of {}?", "What's the capital city of {}?", "Tell me the capital of {}.",
                "Name the capital of {}.", "Which city is the capital of {}?", "What is {}'s capital?",
                "Do you know the capital of {}?"),
    "continent": ("Where is {}?", "On which continent is {}?", "What continent is {} on?", "Where in the world is {}?"),
    "language": ("What language do people speak in {}?", "Which language is spoken in {}?", "What is spoken in {}?",
                 "What is the language of {}?"),
    "currency": ("What is the currency of {}?", "What money do they use in {}?", "Which currency does {} use?",
                 "How do people pay in {}?"),
}  # fmt: skip
SUM_WORDINGS = {
    "+": ("Add {0} and {1}.", "What is the sum of {0} and {1}?", "What do {0} and {1} make?", "Add {1} to {0}.",
          "What do I get if I add {0} and {1}?"),
    "-": ("Take {1} away from {0}.", "Subtract {1} from {0}.", "What remains if I take {1} from {0}?",
          "What is left of {0} without {1}?", "What do I get if I subtract {1} from {0}?"),
    "*": ("Multiply {0} by {1}.", "Multiply {0} and {1}.", "What is the product of {0} and {1}?",
          "What do I get if I multiply {0} by {1}?"),
    "/": ("Divide {0} by {1}.", "What do I get if I divide {0} by {1}?", "How often does {1} go into {0}?"),
}  # fmt: skip
SPELLING_WORDINGS = (
    "Spell {}.", "How do you spell {}?", "Spell the word {}.", "How is the word {} spelled?", "Please spell {}.",
    "How do I write {}?", "Can you spell {}?", "What are the letters of {}?", "Spell {} for me.",
    "What is the spelling of {}?", "Can you spell the word {}?", "Which letters make up the word {}?",
)  # fmt: skip
OPPOSITE_WORDINGS = (
    "What is the opposite of {}?", "Tell me the opposite of {}.", "What's the opposite of {}?",
    "Which word is the opposite of {}?", "Do you know what the opposite of {} is?",
)  # fmt: skip
UNIT_WORDINGS = (
    "How many {0} are in {1}?", "How many {0} is {1}?", "How many {0} do {1} have?", "{2} are how many {0}?",
    "Tell me {1} in {0}.", "How many {0} are there in {1}?", "What is {1} in {0}?", "Convert {1} to {0}.",
    "How many {0} make {1}?", "How many {0} do {1} make?",
)  # fmt: skip
FREQUENT = 3
TWO_DIGITS = 1500
"""Sums of two-digit numbers: what eight and seven are follows from twenty eight and seven."""
SENTENCES = 1500
"""Short sentences of the texts that are to be said after the user."""
SPOKEN_WORDS = 16  # longer questions are not synthesised
SPOKEN_AT_MOST = {"digits": 0, "arithmetic": 1600, "spelling": 900, "opposite": 400, "rhyme": 120, "currency": 300,
                  "language": 300, "repeat": 500}  # fmt: skip


class Pair(NamedTuple):
    kind: str
    item: str
    question: str
    answer: str


def rows(name: str) -> list[list[str]]:
    """Tab-separated rows of text/<name>.tsv."""
    return [line.split("\t") for line in (HERE / "text" / f"{name}.tsv").read_text().splitlines() if line.strip()]


def sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def countries() -> Iterator[Pair]:
    for country, capital, continent, language, currency in rows("countries"):
        for kind, answer in (
            ("capital", f"The capital of {country} is {capital}."),
            ("continent", f"{sentence(country)} is in {continent}."),
            ("language", f"People in {country} speak {language}."),
            ("currency", f"The currency of {country} is {currency}."),
        ):
            for wording in COUNTRY_WORDINGS[kind]:
                yield Pair(kind, f"{kind} of {country}", wording.format(country), answer)
        if capital not in country and capital != "London":
            answer = f"{capital} is the capital of {country}."
            yield Pair("capital", f"country of {capital}", f"{capital} is the capital of which country?", answer)
            yield Pair("capital", f"country of {capital}", f"Which country has the capital {capital}?", answer)


def definitions() -> Iterator[Pair]:
    for thing, meaning in rows("definitions"):
        word = re.sub(r"^(an?|the) ", "", thing)
        answer = sentence(f"{thing} is {meaning}.")
        for wording in (f"What is {thing}?", f"Tell me what {thing} is.", f"Define {word}.", f"What does {word} mean?"):
            yield Pair("definition", word, wording, answer)


def alternatives(name: str) -> Iterator[Pair]:
    """Tables of `wording | wording <TAB> answer`."""
    for wordings, answer in rows(name):
        questions = [wording.strip() for wording in wordings.split("|")]
        for question in questions:
            yield Pair(name, questions[0], question, answer)


def patterns() -> Iterator[Pair]:
    """Small talk about any name, pet, pain: tables of `wording {} | wording {} <TAB> answer <TAB> filler | filler`."""
    for wordings, answer, fillers in rows("patterns"):
        for filler in fillers.split(" | "):
            forms = [wording.strip().format(filler) for wording in wordings.split("|")]
            for form in forms:
                yield Pair("smalltalk", forms[0], form, answer.format(filler))


def arithmetic(rng: random.Random) -> Iterator[Pair]:
    """Every sum of small numbers in five spoken wordings, and one time in four in digits."""
    sums = [(a, "+", b, a + b) for a in range(21) for b in range(21)]
    sums += [(a, "+", b, a + b) for a in range(10, 100, 10) for b in (*range(1, 10), *range(10, 100, 10))]
    sums += [(a, "-", b, a - b) for a in range(21) for b in range(a + 1)]
    sums += [(a, "-", b, a - b) for a in range(30, 101, 10) for b in (*range(1, 10), *range(10, a + 1, 10))]
    sums += [(a, "*", b, a * b) for a in range(13) for b in range(13)]
    sums += [(a * b, "/", b, a) for a in range(1, 13) for b in range(1, 11)]
    factors = (14, 16, 20, 24, 30, 50, 52, 60, 100, 1000)
    sums += [(a, "*", b, a * b) for a in range(2, 21) for b in factors if a * b < 10000]
    carried = [(a, "+", b, a + b) for a in range(21, 100) for b in range(2, 100)]
    carried += [(a, "-", b, a - b) for a in range(21, 100) for b in range(2, a)]
    carried += [(a, "*", b, a * b) for a in range(13, 41) for b in range(2, 13)]
    sums += rng.sample(carried, TWO_DIGITS)
    names = {"+": ["plus"], "-": ["minus"], "*": ["times", "multiplied by"], "/": ["divided by"]}
    for a, sign, b, result in sums:
        item = f"{a} {sign} {b}"
        said = [f"{in_words(a)} {name} {in_words(b)}" for name in names[sign]]
        wordings = [w for s in said for w in (f"What is {s}?", f"How much is {s}?", f"What's {s}?", f"{sentence(s)}?")]
        wordings += [f"{lead} {said[0]}{end}" for lead, end in (("Tell me what", " is."), ("Please work out", "."))]
        wordings += [wording.format(in_words(a), in_words(b)) for wording in SUM_WORDINGS[sign]]
        answer = sentence(f"{said[0]} is {in_words(result)}.")
        for wording in rng.sample(wordings, 5 if a <= 20 else 2):
            yield Pair("arithmetic", item, wording, answer)
        if rng.random() < 0.25:
            yield Pair("digits", item, f"What is {a} {names[sign][0]} {b}?", answer)


def words(rng: random.Random, more: Sequence[str]) -> Iterator[Pair]:
    """Opposites, plurals, rhymes and spelling; what is spelled is every common noun of the tables, and `more`."""
    for a, b in rows("opposites"):
        for word, other in ((a, b), (b, a)):
            answer = f"The opposite of {word} is {other}."
            for wording in OPPOSITE_WORDINGS:
                yield Pair("opposite", word, wording.format(word), answer)
    for one, many in rows("plurals"):
        for wording in (f"What is the plural of {one}?", f"Tell me the plural of {one}."):
            yield Pair("plural", one, wording, f"The plural of {one} is {many}.")
    for a, b in rows("rhymes"):
        for word, other in ((a, b), (b, a)):
            answer = f"{sentence(other)} rhymes with {word}."
            yield Pair("rhyme", word, f"What rhymes with {word}?", answer)
            yield Pair("rhyme", word, f"Tell me a word that rhymes with {word}.", answer)
    spelled = {word for table in ("plurals", "opposites", "rhymes") for row in rows(table) for word in row}
    spelled |= {re.sub(r"^(an?|the) ", "", thing) for thing, _ in rows("definitions")}
    texts = (text for table in ("definitions", "facts", "smalltalk", "prompts") for row in rows(table) for text in row)
    spelled |= {word for text in texts for word in re.findall(r"(?<![\w.'])[a-z]{3,10}\b(?!')", text)}
    _, unseen = held_back()
    for word in sorted(word for word in {*spelled, *more} if word.isalpha() and not any(i in word for i in unseen)):
        answer = f"The word {word} is spelled {', '.join(word.upper())}."
        for wording in rng.sample(SPELLING_WORDINGS, 4 if word in spelled else 1):
            yield Pair("spelling", word, wording.format(word), answer)


def animals() -> Iterator[Pair]:
    for animal, young, sound, legs, group in rows("animals"):
        a = f"an {animal}" if animal[0] in "aeiou" else f"a {animal}"
        if young:
            answer = f"A young {animal} is called {'an' if young[0] in 'aeiou' else 'a'} {young}."
            yield Pair("young", animal, f"What is a baby {animal} called?", answer)
            yield Pair("young", animal, f"What do you call a young {animal}?", answer)
        if sound:
            yield Pair("sound", animal, f"What sound does {a} make?", sentence(f"{a} {sound}."))
            yield Pair("sound", animal, f"What noise does {a} make?", sentence(f"{a} {sound}."))
        yield Pair("legs", animal, f"How many legs does {a} have?", sentence(f"{a} has {legs} legs."))
        yield Pair("group", animal, f"What kind of animal is {a}?", sentence(f"{a} is {group}."))


def sequences() -> Iterator[Pair]:
    """What comes before and after: days, months, letters, numbers."""
    for name, ring in (("day", DAYS), ("month", MONTHS)):
        for before, here in pairwise((*ring, ring[0])):
            after = f"{here} comes after {before}."
            yield Pair("order", f"after {before}", f"What {name} comes after {before}?", after)
            yield Pair("order", f"after {before}", f"Which {name} follows {before}?", after)
            yield Pair("order", f"after {before}", f"Which {name} is after {before}?", after)
            yield Pair("order", f"after {before}", f"What is the next {name} after {before}?", after)
            yield Pair("order", f"after {before}", f"Which is the {name} after {before}?", after)
            yield Pair("order", f"after {before}", f"What is the {name} after {before}?", after)
            yield Pair("order", f"after {before}", f"Name the {name} after {before}.", after)
            for wording in (f"What {name} comes before {here}?", f"Which {name} comes just before {here}?",
                            f"Which {name} is right before {here}?", f"What is the {name} before {here}?",
                            f"Name the {name} before {here}.",
                            f"Tell me the {name} that is before {here}."):  # fmt: skip
                yield Pair("order", f"before {here}", wording, f"{before} comes before {here}.")
        for first, second, third in zip(ring, (*ring[1:], *ring[:1]), (*ring[2:], *ring[:2]), strict=True):
            answer = f"First comes {second}, then {third}."
            for asked in ("What {0} is two {0}s after {1}?", "Which {0} comes two {0}s after {1}?"):
                wording = asked.format(name, first)
                yield Pair("order", f"two {name}s after {first}", wording, answer)
    for today, next_day in pairwise((*DAYS, DAYS[0])):
        tomorrow, yesterday = f"Tomorrow is {next_day}.", f"Yesterday was {today}."
        for wording in (f"If today is {today}, what day is tomorrow?", f"Today is {today}. What day is tomorrow?",
                        f"It is {today} today. What comes tomorrow?",
                        f"What day is it tomorrow if today is {today}?"):  # fmt: skip
            yield Pair("order", f"tomorrow {today}", wording, tomorrow)
        for wording in (f"If today is {next_day}, what day was yesterday?", f"Today is {next_day}. What was yesterday?",
                        f"It is {next_day} today. What day was it yesterday?",
                        f"What was yesterday if today is {next_day}?"):  # fmt: skip
            yield Pair("order", f"yesterday {next_day}", wording, yesterday)
    for month, days, nth in zip(MONTHS, MONTH_DAYS, ORDINALS, strict=True):
        length = f"{month} has {in_words(days)} days."
        yield Pair("order", f"days of {month}", f"How many days does {month} have?", length)
        yield Pair("order", f"days of {month}", f"How many days are in {month}?", length)
        yield Pair("order", f"days of {month}", f"How long is the month of {month}?", length)
        for wording in (f"What is the {nth} month?", f"What is the {nth} month of the year?", f"Name the {nth} month."):
            yield Pair("order", f"month {nth}", wording, f"The {nth} month is {month}.")
    numbers = [(in_words(n), in_words(n + 1)) for n in (*range(1, 31), 39, 49, 59, 69, 79, 89, 99)]
    for name, neighbours in (("letter", pairwise(ascii_uppercase)), ("number", numbers)):
        for before, after in neighbours:
            said = sentence(f"{after} comes after {before}.")
            yield Pair("order", f"{name} after {before}", f"What {name} comes after {before}?", said)
            said = sentence(f"{before} comes before {after}.")
            yield Pair("order", f"{name} before {after}", f"What {name} comes before {after}?", said)


def conversions() -> Iterator[Pair]:
    """Units in smaller ones: the answer is a product, which it shares with `arithmetic`."""
    for small, unit, units, factor in (
        ("minutes", "hour", "hours", 60), ("seconds", "minute", "minutes", 60), ("days", "week", "weeks", 7),
        ("months", "year", "years", 12), ("centimeters", "meter", "meters", 100), ("inches", "foot", "feet", 12),
        ("grams", "kilogram", "kilograms", 1000), ("meters", "kilometer", "kilometers", 1000),
        ("cents", "dollar", "dollars", 100), ("feet", "yard", "yards", 3), ("eggs", "dozen", "dozen", 12),
        ("hours", "day", "days", 24), ("ounces", "pound", "pounds", 16), ("quarts", "gallon", "gallons", 4),
        ("years", "decade", "decades", 10), ("years", "century", "centuries", 100), ("weeks", "year", "years", 52),
        ("days", "fortnight", "fortnights", 14), ("millimeters", "centimeter", "centimeters", 10),
        ("legs", "spider", "spiders", 8), ("wheels", "car", "cars", 4), ("fingers", "hand", "hands", 5),
        ("sides", "triangle", "triangles", 3),
    ):  # fmt: skip
        for n in (*range(2, 21), 24, 30, 40, 50):
            many = f"{in_words(n)} {units}"
            answer = f"{sentence(in_words(n))} times {in_words(factor)} is {in_words(n * factor)} {small}."
            for wording in UNIT_WORDINGS if n * factor < 10000 else ():
                yield Pair("unit", f"{n} {unit} in {small}", wording.format(small, many, sentence(many)), answer)


def repetitions(rng: random.Random, more: Sequence[str]) -> Iterator[Pair]:
    """ "Repeat after me", with sentences from the other answers, and `more`."""
    sayings = [sentence(f"{thing} is {meaning}.") for thing, meaning in rows("definitions")]
    sayings += [answer for _, answer in rows("facts")]
    sayings += more
    wordings = ("Repeat after me: {}", "Say this: {}", "Please repeat: {}", "Say: {}", "Repeat this sentence: {}",
                "Say these words: {}", "Please say after me: {}", "Repeat what I say: {}", "Can you say this: {}",
                "Can you repeat after me: {}", "Please say: {}", "Now say this: {}")  # fmt: skip
    for saying in (saying for saying in sayings if len(saying.split()) <= 9):
        for wording in rng.sample(wordings, 3):
            yield Pair("repeat", saying, wording.format(saying), saying)


def evaluation_questions(name: str = "questions") -> list[dict]:
    """Rows of evaluation/<name>.jsonl."""
    return [json.loads(line) for line in (HERE / "evaluation" / f"{name}.jsonl").read_text().splitlines()]


def user_turns(row: dict) -> list[str]:
    """What the user says in a row of an evaluation: the question, or every other one of `turns`."""
    return row["turns"][::2] if "turns" in row else [row["question"]]


def held_back() -> tuple[set[str], set[str]]:
    """What the evaluations keep to themselves: their questions, in lower case, and their unseen items."""
    kept = [*evaluation_questions("questions"), *evaluation_questions("range")]
    asked = {text.lower() for row in kept for text in user_turns(row)}
    return asked, {row["item"] for row in kept if row["unseen"]}


def frequent_words(path: Path) -> list[str]:
    """Words of 3 to 10 letters that the texts of a table (its last column) use at least `FREQUENT` times."""
    counts = Counter(word for line in path.read_text().splitlines() for word in line.split("\t")[-1].lower().split())
    return sorted(w for w, count in counts.items() if count >= FREQUENT and 3 <= len(w) <= 10)


def short_sentences(path: Path) -> list[str]:
    """Sentences of 3 to 7 words among the texts of a table (its last column)."""
    texts = [line.split("\t")[-1].lower() for line in path.read_text().splitlines()]
    return [sentence(f"{text}.") for text in texts if 3 <= len(text.split()) <= 7][:SENTENCES]


def pairs(seed: int = 0, texts: Path | None = None) -> list[Pair]:
    """All pairs, each question once, without the evaluations' questions and unseen items.

    A table of texts has more words to spell and sentences to say.
    """
    rng = random.Random(seed)
    to_spell, to_say = (frequent_words(texts), short_sentences(texts)) if texts else ((), ())
    made = (
        *countries(), *definitions(), *alternatives("facts"), *alternatives("smalltalk"), *patterns(),
        *arithmetic(rng), *words(rng, to_spell), *animals(), *sequences(), *conversions(), *repetitions(rng, to_say),
    )  # fmt: skip
    taken, unseen = held_back()
    kept = []
    for pair in made:
        swapped = " ".join(reversed(pair.item.split(" "))) if pair.kind in ("arithmetic", "digits") else pair.item
        if pair.question.lower() not in taken and not unseen & {pair.item, swapped}:
            taken.add(pair.question.lower())
            kept.append(pair)
    return kept


def chat_pairs(path: Path) -> list[Pair]:
    """Prompts and answers of the conversations that `chat.py` wrote."""
    conversations = [json.loads(line)["messages"] for line in path.read_text().splitlines()]
    return [Pair("chat", asked["content"], asked["content"], said["content"]) for asked, said in conversations]


def draw(made: list[Pair], shares: dict[str, int], seed: int) -> Iterator[tuple[str, str, float, str]]:
    """Utterances (name, voice, speed, question): the name is the pair's index and the voice, speeds vary by ±15 %."""
    rng = random.Random(seed)
    order = rng.sample(range(len(made)), len(made))
    left = dict(SPOKEN_AT_MOST)
    spoken = []
    for index in order:
        kind, _, question, _ = made[index]
        if len(question.split()) <= SPOKEN_WORDS and left.get(kind, 1) > 0:
            left[kind] = left.get(kind, len(made)) - 1
            spoken.append(index)
    turn = 0
    for voice, count in shares.items():
        for _ in range(count):
            index = spoken[turn % len(spoken)]
            turn += 1
            name = f"{index:05d}_{re.sub('[:+]', '-', voice)}"
            yield name, voice, round(rng.uniform(0.85, 1.15), 2), made[index].question


def as_heard(question: str) -> str:
    """A question as a plain transcript has it: "what is the capital of france"."""
    return " ".join(re.sub(r"[^a-z0-9' ]", " ", question.lower()).split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", action="append", default=[], metavar="VOICE=COUNT", help="print utterances instead")
    parser.add_argument("--chat", type=Path, help="conversations of chat.py, instead of our own pairs")
    parser.add_argument("--texts", type=Path, help="table of texts whose words and sentences to use, too")
    parser.add_argument("--as-heard", action="store_true", help="questions in lower case, without punctuation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    made = chat_pairs(args.chat) if args.chat else pairs(texts=args.texts)
    shares = {voice: int(count) for voice, count in (share.rsplit("=", 1) for share in args.share)}
    if shares:
        for line in draw(made, shares, args.seed):
            print(*line, sep="\t")
    else:
        for pair in made:
            question = as_heard(pair.question) if args.as_heard else pair.question
            messages = [{"role": role, "message_type": "text", "content": content}
                        for role, content in (("user", question), ("assistant", pair.answer))]  # fmt: skip
            print(json.dumps({**pair._asdict(), "messages": messages}, ensure_ascii=False))


if __name__ == "__main__":
    main()
