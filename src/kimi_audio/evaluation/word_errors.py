"""Which words were taken for others, left out or added.

    errors, pieces = align("the cat sat", "the bat")
    errors.errors, errors.words         # 2, 3
    pieces                              # [["equal", ["the"], ["the"]], ["substitute", ["cat"], ["bat"]], ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WordErrors:
    """Counts; `words` is the number of reference words."""

    substitutions: int
    deletions: int
    insertions: int
    words: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions


def align(reference: str, hypothesis: str) -> tuple[WordErrors, list[list[Any]]]:
    """Counts, and pieces `[type, reference words, hypothesis words]` in order.

    Types are jiwer's: `equal`, `substitute`, `delete`, `insert`. Words are what spaces separate.
    """
    import jiwer

    said, heard = reference.split(), hypothesis.split()
    if not said:  # of which some versions of jiwer make an error
        return WordErrors(0, 0, len(heard), 0), [["insert", [], heard]] if heard else []
    output = jiwer.process_words(" ".join(said), " ".join(heard))
    pieces = [
        [
            piece.type,
            said[piece.ref_start_idx : piece.ref_end_idx],
            heard[piece.hyp_start_idx : piece.hyp_end_idx],
        ]
        for piece in output.alignments[0]
    ]
    return WordErrors(output.substitutions, output.deletions, output.insertions, len(said)), pieces
