"""Questions about sounds: MMAU test-mini, ClothoAQA; and the emotions of MELD.

MMAU (https://github.com/Sakshi113/MMAU): mmau-test-mini.json beside test-mini-audios.

ClothoAQA (https://zenodo.org/records/6473207): clotho_aqa_test.csv, clotho_aqa_val.csv and audio_files. Three people
answered each question; as in the official toolkit those count that two of them answered alike.

MELD (https://github.com/declare-lab/MELD, MELD.Raw.tar.gz and in it test.tar.gz): test_sent_emo.csv beside
output_repeated_splits_test/dia0_utt0.mp4. The sound of the clips is kept as FLAC. As in the official toolkit, clips
over 30 seconds (two, wrongly cut) are left out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from kimi_audio.errors import AudioError
from kimi_audio.evaluation.prepare.common import (
    Manifest,
    find,
    keep_sound,
    listed,
    locate,
    progress,
    read_csv,
    read_items,
)

EMOTIONS = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")
LONGEST = 30.0


def mmau(download: Path, manifest: Manifest) -> None:
    table = locate(download, "mmau-test-mini.json")
    for item in progress(read_items(table), "MMAU"):
        name, choices, answer = item.get("id", "?"), item.get("choices") or [], item.get("answer")
        if answer not in choices:
            manifest.faults.append(f"{name}: the answer {answer!r} is none of the choices")
            continue
        manifest.add(
            name,
            table.parent / item.get("audio_id", f"test-mini-audios/{name}.wav"),
            question=item.get("question"),
            choices=choices,
            options=listed(choices),
            answer=answer,
            task=item.get("task"),
            difficulty=item.get("difficulty"),
        )


def clothoaqa(download: Path, manifest: Manifest) -> None:
    tables = {"test": locate(download, "clotho_aqa_test.csv"), "dev": find(download, "clotho_aqa_val.csv")}
    folder = locate(download, "audio_files")
    for split, table in tables.items():
        answers: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in read_csv(table) if table else []:
            answers[row.get("file_name", ""), row.get("QuestionText", "")].append(row.get("answer", "").lower())
        for number, ((name, question), given) in enumerate(progress(answers.items(), f"ClothoAQA {split}")):
            answer, times = Counter(given).most_common(1)[0]
            if times > 1:
                manifest.add(f"{split}-{number:05}", folder / name, question=question, answer=answer, split=split)


def meld(download: Path, manifest: Manifest) -> None:
    from kimi_audio.audio import load_audio

    table = locate(download, "test_sent_emo.csv")
    folder = locate(download, "output_repeated_splits_test")
    for row in progress(read_csv(table), "MELD"):
        name = f"dia{row.get('Dialogue_ID', '?')}_utt{row.get('Utterance_ID', '?')}"
        clip, sound = folder / f"{name}.mp4", manifest.folder / "audio" / f"{name}.flac"
        if _seconds(row.get("EndTime", "")) - _seconds(row.get("StartTime", "")) > LONGEST:
            manifest.faults.append(f"{name}: longer than {LONGEST:g} seconds, left out as in the official toolkit")
            continue
        if clip.is_file() and not sound.exists():
            try:
                keep_sound(sound, load_audio(clip))
            except AudioError as error:
                manifest.faults.append(f"{name}: {error}")
                continue
        label = row.get("Emotion") if row.get("Emotion") in EMOTIONS else None
        manifest.add(name, sound if sound.exists() else clip, label=label, choices=[*EMOTIONS])


def _seconds(time: str) -> float:
    """`00:14:38,127` → 878.127."""
    if not (parts := re.fullmatch(r"(\d+):(\d+):(\d+),(\d+)", time.strip())):
        return 0.0
    hours, minutes, seconds, thousandths = map(int, parts.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000
