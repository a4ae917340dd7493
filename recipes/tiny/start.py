"""The model that training starts from: SmolLM2 with a vocabulary cut to English, Whisper's encoders, new parts.

    python recipes/tiny/start.py MODELS OUT MANIFEST… --texts SENTENCES.tsv

MODELS holds the Hugging Face folders `smollm2`, `whisper-base` (acoustic encoder), `whisper-tiny.en` (semantic codes).
The vocabulary keeps what the manifests' texts and conversations and the sentences (`id <TAB> sentence`) use.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kimi_audio.checkpoint.layout import SEMANTIC_FOLDER
from kimi_audio.checkpoint.small import build_small

BPE_TOKENS, AUDIO_CODES = 16384, 2048


def texts(manifests: list[Path], sentences: list[Path]) -> Iterator[str]:
    """Everything that the model will read or write in training."""
    for path in manifests:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            yield from (row[key] for key in ("text", "label", "question", "answer") if row.get(key))
            yield from (m["content"] for m in row.get("messages", []) if m["message_type"] == "text")
    for path in sentences:
        yield from (line.split("\t", 1)[1].lower() for line in path.read_text().splitlines() if "\t" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--texts", type=Path, action="append", default=[])
    args = parser.parse_args()
    sample = list(texts(args.manifests, args.texts))

    def build(whisper: str, out: Path, semantic_layers: int | None = None) -> dict[str, int]:
        return build_small(args.models / "smollm2", args.models / whisper, out, vocab_size=BPE_TOKENS, texts=sample,
                           audio_codes=AUDIO_CODES, semantic_layers=semantic_layers)  # fmt: skip

    print(build("whisper-base", args.out))
    # All of tiny.en's encoder is less than half of base's.
    with tempfile.TemporaryDirectory() as scratch:
        build("whisper-tiny.en", Path(scratch) / "small", semantic_layers=4)
        shutil.rmtree(args.out / SEMANTIC_FOLDER)
        shutil.copytree(Path(scratch) / "small" / SEMANTIC_FOLDER, args.out / SEMANTIC_FOLDER)


if __name__ == "__main__":
    main()
