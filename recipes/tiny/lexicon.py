"""Make the pronouncing dictionary of a model that speaks from phonemes, and hears words in them.

    python recipes/tiny/lexicon.py cmudict.dict pronunciations.txt --texts LINES.tsv --texts manifest.jsonl

`cmudict.dict` is the CMU Pronouncing Dictionary (https://github.com/cmusphinx/cmudict, BSD licence). Words of the texts
(the last column of lines, the `text` or `question` of a manifest) that it lacks are pronounced by `flite`, whose voice
the model learns from; how often each word comes in them stands beside it.
"""

import argparse
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from kimi_audio.pronunciation import ARPABET, Lexicon

AS_FLITE = {"to": "tx", "and": "Qnd", "the": "Dx", "a": "x"}
"""How the voice says the shortest words."""
WORDS_A_CALL = 100


def of_dictionary(path: Path) -> Iterator[tuple[str, str]]:
    """The first pronunciation of each word."""
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phones = line.split("#")[0].split()
        if re.fullmatch(r"[a-z']+", word):
            yield word, "".join(ARPABET["ax" if phone == "AH0" else phone.lower().rstrip("012")] for phone in phones)


def of_flite(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What the voice says, for words between pauses."""
    left = iter(words)
    while call := list(islice(left, WORDS_A_CALL)):
        command = ["flite", "-voice", "slt", "-ps", "-o", "none", "-t", " . ".join(call) + " ."]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        parts = [part.split() for part in re.split(r"\bpau\b", said) if part.strip()]
        if len(parts) == len(call):
            for word, phones in zip(call, parts, strict=True):
                yield word, "".join(ARPABET[phone] for phone in phones)
        elif len(call) > 1:  # one of them has a pause inside
            for word in call:
                yield from of_flite([word])


def words_of(path: Path) -> Iterator[str]:
    """The words of a file of texts."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if path.suffix == ".jsonl":
            row = json.loads(line)
            text = row.get("text") or row.get("question") or ""
        else:
            text = line.rsplit("\t", 1)[-1]
        yield from re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionary", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", type=Path, action="append", default=[])
    args = parser.parse_args()
    words = dict(of_dictionary(args.dictionary)) | AS_FLITE
    counts = Counter(word for path in args.texts for word in words_of(path))
    words |= dict(of_flite(word for word in counts if word not in words))
    Lexicon(words, counts).save(args.out)


if __name__ == "__main__":
    main()
