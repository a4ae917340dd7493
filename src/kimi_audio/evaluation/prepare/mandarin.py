"""Mandarin recognition: AISHELL-1, AISHELL-2 and WenetSpeech.

AISHELL-1 (https://www.openslr.org/33): data_aishell/wav/test/S0764/BAC009S0764W0121.wav, words of all in
data_aishell/transcript/aishell_transcript_v0.8.txt. The archives in data_aishell/wav are to be unpacked, too.

AISHELL-2 (https://www.aishelltech.com/aishell_2, test and development data): iOS/test/wav.scp (key, tab, path) and
iOS/test/trans.txt (key, tab, words). iOS/test.tar.gz is to be unpacked.

WenetSpeech (https://github.com/wenet-e2e/WenetSpeech, on request): WenetSpeech.json beside audio/test_net and
audio/test_meeting. The long recordings are cut into their segments, which are kept as FLAC.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kimi_audio.errors import AudioError
from kimi_audio.evaluation.prepare.common import (
    Manifest,
    keep_sound,
    keyed_lines,
    locate,
    progress,
    read_items,
)

TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"
SUBSETS = ("TEST_NET", "TEST_MEETING")
RATE = 16_000


def aishell_1(download: Path, manifest: Manifest) -> None:
    words = dict(keyed_lines(locate(download, TRANSCRIPT)))
    for speaker in progress(sorted(locate(download, "wav/test").iterdir()), "AISHELL-1"):
        written = {key for key in words if speaker.name in key}  # BAC009S0764W0121: the transcript is of all splits
        for key in sorted(written | {path.stem for path in speaker.glob("*.wav")}):
            text = "".join(words.get(key, "").split())
            manifest.add(key, speaker / f"{key}.wav", text=text, speaker=speaker.name)


def aishell_2(download: Path, manifest: Manifest) -> None:
    table = locate(download, "iOS/test/wav.scp", "test/wav.scp")
    paths, words = dict(keyed_lines(table)), dict(keyed_lines(table.with_name("trans.txt")))
    for key in progress(sorted(paths.keys() | words.keys()), "AISHELL-2"):
        if key not in paths:
            manifest.faults.append(f"{key}: {table} does not say where its sound is")
            continue
        manifest.add(key, table.parent / paths[key], text=words.get(key), subset="ios")


def wenetspeech(download: Path, manifest: Manifest) -> None:
    table = locate(download, "WenetSpeech.json")
    recordings = [r for r in read_items(table, "audios") if any(_subset(s) for s in r.get("segments", []))]
    for recording in progress(recordings, "WenetSpeech"):
        segments = [segment for segment in recording["segments"] if _subset(segment)]
        try:
            _cut(table.parent / recording["path"], segments, manifest.folder / "audio")
        except (AudioError, KeyError) as error:
            problem = f"the field {error} is missing" if isinstance(error, KeyError) else error
            manifest.faults += [f"{segment.get('sid', recording.get('aid'))}: {problem}" for segment in segments]
            continue
        for segment in segments:
            sound = manifest.folder / "audio" / f"{segment['sid']}.flac"
            manifest.add(segment["sid"], sound, text=segment.get("text"), subset=_subset(segment))


def _subset(segment: dict[str, Any]) -> str | None:
    return next((subset for subset in SUBSETS if subset in segment.get("subsets", [])), None)


def _cut(path: Path, segments: list[dict[str, Any]], folder: Path) -> None:
    """Write the segments of a recording that are not there yet; one without length is not written."""
    from kimi_audio.audio import load_audio

    missing = [segment for segment in segments if not (folder / f"{segment['sid']}.flac").exists()]
    samples = load_audio(path, RATE) if missing else None
    for segment in missing:
        assert samples is not None
        piece = samples[int(segment["begin_time"] * RATE) : int(segment["end_time"] * RATE)]
        if len(piece):
            keep_sound(folder / f"{segment['sid']}.flac", piece, RATE)
