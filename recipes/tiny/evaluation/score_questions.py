"""Judge answers to `questions.jsonl`: right if any accepted word or phrase occurs as whole words.

    is_correct("It is Ottawa, of course.", ["ottawa"])        # True

Answers are compared in lower case without punctuation. Each of a question's `patterns` is a regular expression;
`"8|eight"` accepts either. An answer that goes on after the right word is still right: the questions are simple, and
the judge is meant to be lenient in the same way to every model.
"""

import re


def normalise(text: str) -> str:
    """Lower case, letters and digits only, single spaces: "Washington, D.C." -> "washington d c", "1,000" -> "1000"."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.lower().replace("'", ""))
    return " ".join(re.sub(r"[^a-z0-9]+", " ", text).split())


def is_correct(answer: str, patterns: list[str]) -> bool:
    """Whether any pattern matches whole words of the normalised answer."""
    plain = normalise(answer)
    return any(re.search(rf"\b(?:{pattern})\b", plain) for pattern in patterns)
