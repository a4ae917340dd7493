"""LibriSpeech (https://www.openslr.org/12).

LibriSpeech/test-clean/SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac, with the words of a chapter in
SPEAKER-CHAPTER.trans.txt; test-other likewise. One of the two is enough.
"""

from __future__ import annotations

from pathlib import Path

from kimi_audio.errors import DataError
from kimi_audio.evaluation.prepare.common import Manifest, find, keyed_lines, progress

SUBSETS = ("test-clean", "test-other")


def librispeech(download: Path, manifest: Manifest) -> None:
    folders = {subset: folder for subset in SUBSETS if (folder := find(download, subset))}
    if not folders:
        raise DataError(f"there is no {' or '.join(SUBSETS)} in it")
    for subset, folder in folders.items():
        for chapter in progress(sorted(folder.glob("*/*")), subset):
            _chapter(chapter, subset, manifest)


def _chapter(chapter: Path, subset: str, manifest: Manifest) -> None:
    words = {}
    for path in chapter.glob("*.trans.txt"):
        words |= dict(keyed_lines(path))
    for key in sorted(words.keys() | {path.stem for path in chapter.glob("*.flac")}):
        manifest.add(key, chapter / f"{key}.flac", text=words.get(key), subset=subset, speaker=key.split("-")[0])
