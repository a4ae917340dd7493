"""The 25 questions of the spoken conversation, recorded by a person or a synthesiser.

A folder of recordings named by their ids: speed-1.wav, accent-1.wav and so on. What to say in them, and how, is in
`rating_assets/conversation_prompts.jsonl`.
"""

from __future__ import annotations

from pathlib import Path

from kimi_audio.evaluation.prepare.common import Manifest
from kimi_audio.evaluation.rating import conversation_prompts


def conversation(download: Path, manifest: Manifest) -> None:
    for row in conversation_prompts():
        found = sorted(download.glob(f"{row['id']}.*"))
        path = found[0] if found else download / f"{row['id']}.wav"
        manifest.add(row["id"], path, text=row["text"], dimension=row["dimension"])
