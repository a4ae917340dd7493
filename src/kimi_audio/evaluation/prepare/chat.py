"""Spoken questions: OpenAudioBench and VoiceBench.

OpenAudioBench (https://huggingface.co/datasets/baichuan-inc/OpenAudioBench): eval_datas/SUBSET/SUBSET.csv beside
audios, for five subsets.

VoiceBench (https://huggingface.co/datasets/hlt-lab/voicebench): SUBSET/SPLIT-00000-of-00001.parquet, sounds inside;
they are unpacked. As in the official toolkit, AlpacaEval is `alpacaeval_full` and SD-QA the split `usa`.

The sound alone is the question; `question` has its words, for the judge.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from kimi_audio.errors import DataError
from kimi_audio.evaluation.prepare.common import Manifest, find, keep, locate, progress, read_csv

# subset: columns of the question and of what is right (AlpacaEval: another model's answer, not used)
OPEN_AUDIO_BENCH = {
    "alpaca_eval": ("instruction", None),
    "llama_questions": ("Questions", "Answer"),
    "reasoning_qa": ("Prompt", "参考答案"),
    "trivia_qa": ("question", "answer_normalized_aliases"),
    "web_questions": ("question", "answers"),
}
# subset: the splits of it
VOICE_BENCH = {
    "alpacaeval_full": "test",
    "commoneval": "test",
    "sd-qa": "usa",
    "mmsu": "*",
    "openbookqa": "test",
    "ifeval": "test",
    "advbench": "test",
}
WITH_REFERENCE = ("sd-qa", "mmsu", "openbookqa")


def openaudiobench(download: Path, manifest: Manifest) -> None:
    root = locate(download, "eval_datas")
    for subset, (question, right) in OPEN_AUDIO_BENCH.items():
        table = root / subset / f"{subset}.csv"
        if not table.is_file():
            manifest.faults.append(f"{subset}: {table} does not exist")
            continue
        for number, row in enumerate(progress(read_csv(table), subset), start=2):
            file = row.get("audio_filename")
            if not file:
                manifest.faults.append(f"{table}:{number}: audio_filename is missing")
                continue
            fields = {"question": row.get(question)}
            if right is not None:
                fields["answer"] = _one_of(row.get(right, ""))
            manifest.add(f"{subset}/{Path(file).stem}", table.parent / "audios" / file, subset=subset, **fields)


def _one_of(text: str) -> str:
    """A Python list of accepted answers, as the tables have it, as `this or that`; other text stays."""
    try:
        answers = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text.strip()
    return " or ".join(map(str, answers)) if isinstance(answers, list | tuple) else text.strip()


def voicebench(download: Path, manifest: Manifest) -> None:
    found = False
    for subset, split in VOICE_BENCH.items():
        folder = find(download, subset)
        for table in sorted(folder.glob(f"{split}-*.parquet")) if folder else []:
            found = True
            _parquet(table, subset, manifest)
    if not found:
        raise DataError(f"there is no parquet file of {', '.join(VOICE_BENCH)} in it")


def _parquet(table: Path, subset: str, manifest: Manifest) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(table)
    except pyarrow.ArrowException:
        manifest.faults.append(f"{table}: not a parquet file")
        return
    rows = (row for batch in file.iter_batches(batch_size=32) for row in batch.to_pylist())
    for number, row in enumerate(progress(rows, f"{subset} {table.stem}", file.metadata.num_rows)):
        name = f"{subset}/{table.stem}-{number:05}"
        sound = row.pop("audio", None) or {}
        if not sound.get("bytes"):
            manifest.faults.append(f"{name}: there is no sound in the row")
            continue
        path = manifest.folder / "audio" / f"{name}{Path(sound.get('path') or '.wav').suffix or '.wav'}"
        keep(path, lambda part, data=sound["bytes"]: part.write_bytes(data))
        manifest.add(name, path, subset=subset, **_fields(subset, row))


def _fields(subset: str, row: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"question": row.get("prompt")}
    if subset in WITH_REFERENCE:
        fields["answer"] = row.get("reference")
    if subset == "ifeval":  # one table column for each argument of any rule: those of other rules are null
        fields["instruction_id_list"] = row.get("instruction_id_list") or None
        rules = row.get("kwargs") or []
        fields["kwargs"] = [{key: value for key, value in rule.items() if value is not None} for rule in rules]
    return fields
