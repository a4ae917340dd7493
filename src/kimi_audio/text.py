"""Text ↔ BPE ids, from the checkpoint's ``tiktoken.model`` file (SPEC.md sections 1 and 2).

    tokenizer = TextTokenizer.from_file("model/tiktoken.model")
    tokenizer.decode(tokenizer.encode("Good morning."))

The file has one token per line: its bytes in base64, a space, its rank, which is its id. Text is split by
Qwen's pattern before merging. Only text ids are produced: a user who types ``<|im_msg_end|>`` gets those
characters, not the special id.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import tiktoken

from kimi_audio.errors import CheckpointError

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class TextTokenizer:
    """Byte-level BPE over the text range of the id space.

    Args:
        ranks: token bytes → id. All 256 single bytes must be there, so that every string can be written.

    Raises:
        CheckpointError: when a single byte has no token or two tokens share an id.
    """

    def __init__(self, ranks: Mapping[bytes, int]):
        if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
            raise CheckpointError(f"the text tokenizer has no token for byte {missing[0]}; all 256 bytes need one")
        if len(set(ranks.values())) != len(ranks):
            raise CheckpointError("the text tokenizer gives one id to several tokens")
        self.ranks = dict(ranks)
        self._bytes_of = {rank: token for token, rank in ranks.items()}
        self._bpe = tiktoken.Encoding("kimi-audio", pat_str=QWEN_SPLIT, mergeable_ranks=self.ranks, special_tokens={})

    @classmethod
    def from_file(cls, path: str | Path) -> "TextTokenizer":
        """Read a ``tiktoken.model`` file.

        Raises:
            CheckpointError: when the file is missing or a line is not ``base64 rank``.
        """
        path = Path(path)
        ranks: dict[bytes, int] = {}
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise CheckpointError(f"{path}: can't read the text tokenizer ({error.strerror})") from None
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                token, rank = line.split()
                if not 0 <= int(rank) < 2**31:
                    raise ValueError
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error):
                raise CheckpointError(f"{path}: line {number} is not a base64 token and its rank") from None
        return cls(ranks)

    def save(self, path: str | Path) -> None:
        """Write the ranks as a ``tiktoken.model`` file."""
        by_rank = sorted(self.ranks.items(), key=lambda item: item[1])
        Path(path).write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in by_rank))

    def __len__(self) -> int:
        """Smallest number that is above every text id."""
        return max(self._bytes_of) + 1

    def encode(self, text: str) -> list[int]:
        """Text ids of `text`; names of special tokens in it are ordinary characters."""
        return self._bpe.encode_ordinary(text)

    def spell(self, text: str) -> list[int]:
        """Text ids of `text`, each character apart, together with the space before it."""
        return [i for piece in re.findall(r"\s?\S|\s+", text) for i in self._bpe.encode_ordinary(piece)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`. Special and audio ids are dropped; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self._bytes_of.get(i, b"") for i in ids).decode("utf-8", errors="replace")

    def stream(self) -> "TextStream":
        """A decoder that takes ids one at a time."""
        return TextStream(self._bytes_of)


class TextStream:
    """Decodes ids as they come, holding back characters whose bytes are not complete yet.

    The pieces returned by `push` and the final `flush`, joined, equal `TextTokenizer.decode` of all ids.
    """

    def __init__(self, bytes_of: Mapping[int, bytes]):
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Text that became complete with this id; often empty in the middle of a character."""
        return self._utf8.decode(self._bytes_of.get(token_id, b""))

    def flush(self) -> str:
        """What is still held back, as U+FFFD."""
        return self._utf8.decode(b"", final=True)
