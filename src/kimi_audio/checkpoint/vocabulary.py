"""Cut a byte-level BPE vocabulary down to what some texts need.

A small model cannot afford 150 000 embedding rows. `cut_vocabulary` reads the `tokenizer.json` of any
byte-level BPE tokenizer (GPT-2, Qwen2, Llama 3, SmolLM2, ...), keeps the 256 bytes, the tokens used most
on sample texts and the earliest merges, and returns the survivors as tiktoken ranks together with the
source ids whose embedding rows they inherit. A kept token's merge parents are kept too, so every survivor
can still be reached by merging, and merges keep their order: a word whose tokens all survived is split
exactly as before.

    ranks, source_ids = cut_vocabulary("llm/tokenizer.json", texts, size=16384)
    write_tiktoken("out/tiktoken.model", ranks)
"""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tiktoken

from kimi_audio.errors import CheckpointError
from kimi_audio.text import QWEN_SPLIT

MISSING = -1
"""Source id of a byte that the source vocabulary has no token for."""


@dataclass(frozen=True)
class SourceVocabulary:
    """A byte-level BPE read from `tokenizer.json`: tokens in rank order (bytes, then merges as learned)."""

    tokens: list[bytes]
    ids: list[int]  # source id of each token, MISSING where there is none
    parents: list[tuple[int, int] | None]  # ranks of the two halves; None for a byte
    special: dict[str, int]  # added tokens by text, e.g. <|im_end|>

    def encoding(self, kept: Sequence[int] | None = None) -> tiktoken.Encoding:
        """The tiktoken encoder of all tokens, or of the ranks `kept` only (renumbered)."""
        tokens = self.tokens if kept is None else [self.tokens[rank] for rank in kept]
        ranks = {token: rank for rank, token in enumerate(tokens)}
        return tiktoken.Encoding("source", pat_str=QWEN_SPLIT, mergeable_ranks=ranks, special_tokens={})

    def encode(self, text: str) -> list[int]:
        """Source ids of a text."""
        return [self.ids[rank] for rank in self.encoding().encode_ordinary(text)]


def byte_alphabet() -> dict[str, int]:
    """The printable stand-ins that byte-level BPE files use for the 256 bytes (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def read_vocabulary(tokenizer_json: str | Path) -> SourceVocabulary:
    """Read a byte-level BPE `tokenizer.json`. Raises CheckpointError if it is anything else."""
    path = Path(tokenizer_json)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        model = data["model"]
        vocab, merges = model["vocab"], model["merges"]
        byte_level = model["type"] == "BPE" and "ByteLevel" in json.dumps(data.get("pre_tokenizer"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the tokenizer ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a tokenizer.json with a BPE model.") from error
    if not byte_level:
        raise CheckpointError(f"{path}: only byte-level BPE tokenizers can be converted to tiktoken ranks.")

    stand_ins = {byte: char for char, byte in byte_alphabet().items()}
    tokens, ids, parents = [], [], []
    for byte in sorted(range(256), key=lambda b: (vocab.get(stand_ins[b], len(vocab)), b)):
        tokens.append(bytes([byte]))
        ids.append(vocab.get(stand_ins[byte], MISSING))
        parents.append(None)
    rank_of = {token: rank for rank, token in enumerate(tokens)}
    alphabet = byte_alphabet()
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        pair = [bytes(alphabet[char] for char in half) for half in (left, right)]
        token = pair[0] + pair[1]
        if token in rank_of:  # a second way to build a token already there: the first one ranks it
            continue
        rank_of[token] = len(tokens)
        tokens.append(token)
        ids.append(vocab[left + right])
        parents.append((rank_of[pair[0]], rank_of[pair[1]]))
    special = {added["content"]: added["id"] for added in data.get("added_tokens", [])}
    return SourceVocabulary(tokens, ids, parents, special)


def choose_tokens(source: SourceVocabulary, texts: Iterable[str], size: int, min_count: int = 2) -> list[int]:
    """Ranks to keep, ascending: bytes, tokens used at least `min_count` times (most used first), early merges.

    Closed under merge parents. Ties are broken by rank, so the choice depends on the texts alone.
    """
    if not 256 <= size <= len(source.tokens):
        raise CheckpointError(f"vocabulary size {size}: this source allows 256 to {len(source.tokens)}.")
    encoding, counts = source.encoding(), Counter[int]()
    for text in texts:
        counts.update(encoding.encode_ordinary(text))
    used = sorted((rank for rank, n in counts.items() if n >= min_count), key=lambda rank: (-counts[rank], rank))
    kept = set(range(256))
    for rank in [*used, *range(256, len(source.tokens))]:
        family = _ancestors(source, rank) - kept
        if len(kept) + len(family) <= size:
            kept |= family
        if len(kept) == size:
            break
    return sorted(kept)


def _ancestors(source: SourceVocabulary, rank: int) -> set[int]:
    """`rank` and everything it is merged from."""
    family, waiting = set[int](), [rank]
    while waiting:
        family.add(current := waiting.pop())
        waiting.extend(source.parents[current] or ())
    return family


def cut_vocabulary(
    tokenizer_json: str | Path, texts: Iterable[str], size: int, min_count: int = 2
) -> tuple[list[bytes], list[int]]:
    """Cut the vocabulary of `tokenizer_json` to `size` BPE tokens.

    Returns the tokens in rank order (a token's new id is its place in the list) and the source id of each
    (`MISSING` for a byte that the source cannot write).
    """
    source = read_vocabulary(tokenizer_json)
    kept = choose_tokens(source, texts, size, min_count)
    return [source.tokens[rank] for rank in kept], [source.ids[rank] for rank in kept]


def unchanged(source: SourceVocabulary, ranks: Sequence[bytes], texts: Iterable[str]) -> float:
    """Share of `texts` (words, sentences) that the cut vocabulary splits exactly as the source does."""
    whole = source.encoding()
    cut = tiktoken.Encoding(
        "cut", pat_str=QWEN_SPLIT, mergeable_ranks={token: i for i, token in enumerate(ranks)}, special_tokens={}
    )
    same = [
        whole.decode_tokens_bytes(whole.encode_ordinary(text)) == cut.decode_tokens_bytes(cut.encode_ordinary(text))
        for text in texts
    ]
    return sum(same) / max(len(same), 1)


def write_tiktoken(path: str | Path, ranks: Sequence[bytes]) -> None:
    """Write `tiktoken.model`: one line `base64(token) rank` per token."""
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(ranks))
    Path(path).write_text("".join(lines), encoding="ascii")
