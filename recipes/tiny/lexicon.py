"""Make the pronouncing dictionary of a model that speaks from phonemes.

    python recipes/tiny/lexicon.py cmudict.dict --texts LINES.tsv > pronunciations.txt

`cmudict.dict` is the CMU Pronouncing Dictionary (https://github.com/cmusphinx/cmudict, BSD licence). Words of LINES
(their last column) that it lacks are pronounced by `flite`, whose voice the model learns from.
"""

import argparse
import re
import subprocess
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from kimi_audio.pronunciation import ARPABET

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionary", type=Path)
    parser.add_argument("--texts", type=Path, action="append", default=[])
    args = parser.parse_args()
    words = dict(of_dictionary(args.dictionary)) | AS_FLITE
    lines = (line.rsplit("\t", 1)[-1].lower() for path in args.texts for line in path.read_text().splitlines())
    used = dict.fromkeys(word for line in lines for word in re.findall(r"[a-z]+(?:'[a-z]+)*", line))
    words |= dict(of_flite(word for word in used if word not in words))
    for word, phonemes in sorted(words.items()):
        print(word, phonemes)


if __name__ == "__main__":
    main()
