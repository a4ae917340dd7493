"""Judge answers to the fixed evaluation questions: right if any accepted word or phrase occurs as whole words.

    python recipes/tiny/evaluation/score_questions.py answers.jsonl        # lines {"id", "answer"} -> accuracy by kind

Answers are compared in lower case without punctuation. Each of a question's `patterns` is a regular expression;
`"8|eight"` accepts either. An answer that goes on after the right word is still right: the questions are simple, and
the judge is meant to be lenient in the same way to every model.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

QUESTIONS = Path(__file__).with_name("questions.jsonl")


def normalise(text: str) -> str:
    """Lower case, letters and digits only, single spaces: "Washington, D.C." -> "washington d c", "1,000" -> "1000"."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.lower().replace("'", ""))
    return " ".join(re.sub(r"[^a-z0-9]+", " ", text).split())


def is_correct(answer: str, patterns: list[str]) -> bool:
    """Whether any pattern matches whole words of the normalised answer."""
    plain = normalise(answer)
    return any(re.search(rf"\b(?:{pattern})\b", plain) for pattern in patterns)


def score(answers: dict[str, str], questions: list[dict]) -> dict[str, float]:
    """Share of right answers: overall under "all", and for each kind of question. A missing answer is wrong."""
    right = defaultdict(list)
    for row in questions:
        verdict = is_correct(answers.get(row["id"], ""), row["patterns"])
        for group in ("all", row["kind"], "unseen items" if row["unseen"] else "seen items"):
            right[group].append(verdict)
    return {group: sum(verdicts) / len(verdicts) for group, verdicts in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    args = parser.parse_args()
    questions = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    answers = {row["id"]: row["answer"] for row in map(json.loads, args.answers.read_text().splitlines())}
    print(json.dumps({group: round(share, 3) for group, share in score(answers, questions).items()}))


if __name__ == "__main__":
    main()
