"""FLEURS (https://huggingface.co/datasets/google/fleurs).

data/en_us/test.tsv and data/en_us/audio/test.tar.gz, or the folder data/en_us/audio/test that it unpacks to;
data/cmn_hans_cn likewise. One of the two is enough. The table has no header: sentence, file, text as written,
text normalised, its letters, samples, gender. As in the official toolkit, the normalised text is the reference.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from kimi_audio.errors import DataError
from kimi_audio.evaluation.prepare.common import Manifest, find, keep, progress, read_text

LANGUAGES = ("en_us", "cmn_hans_cn")
COLUMNS = 7


def fleurs(download: Path, manifest: Manifest) -> None:
    tables = {language: table for language in LANGUAGES if (table := find(download, f"{language}/test.tsv"))}
    if not tables:
        raise DataError("there is no en_us/test.tsv or cmn_hans_cn/test.tsv in it")
    for language, table in tables.items():
        rows = [line.split("\t") for line in read_text(table).splitlines() if line]
        folder = _sounds(table.parent / "audio", {row[1] for row in rows if len(row) > 1}, manifest.folder / language)
        for number, row in enumerate(rows, start=1):
            if len(row) != COLUMNS:
                manifest.faults.append(f"{table}:{number}: {len(row)} columns; {COLUMNS} are expected")
                continue
            _, file, raw, text, *_ = row
            manifest.add(f"{language}/{Path(file).stem}", folder / file, text=text, raw_text=raw, language=language)


def _sounds(audio: Path, names: set[str], target: Path) -> Path:
    """The folder with the recordings, unpacked into `target` if need be."""
    if (audio / "test").is_dir():
        return audio / "test"
    missing = {name for name in names if not (target / name).exists()}
    if missing:
        if not (audio / "test.tar.gz").is_file():
            raise DataError(f"there is neither test.tar.gz nor test in {audio}")
        with tarfile.open(audio / "test.tar.gz") as archive:
            for member in progress(archive, f"unpacking {audio.parent.name}"):
                name = Path(member.name).name
                if name in missing and (file := archive.extractfile(member)):
                    keep(target / name, lambda part, file=file: part.write_bytes(file.read()))
    return target
