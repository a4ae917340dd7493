"""Teach the flow another voice's codes: recordings with the codes of a voice that says the same, aligned in time.

    python recipes/tiny/parallel.py models/tiny voice.train.jsonl SPOKEN > parallel.train.jsonl
    python recipes/tiny/parallel.py models/tiny voice.train.jsonl proofread.jsonl > parallel.own.jsonl

SPOKEN holds, for line N of the manifest, counted from 0, N.wav: its text in that voice. Or the other voice is the
model's own, and the codes are those that it said (`proofread.py`). The two are aligned by dynamic time warping of what
the acoustic encoder hears of both. A line out is the recording, the other voice's codes, and, four to a code, the
`times` in the recording that go with them. The twentieth of the pairs that fits worst is left out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.layout import ModelParts, load_parts
from kimi_audio.data.manifest import read_recordings
from kimi_audio.tokenizer.acoustic import num_tokens

FRAME = 0.02
"""Seconds."""
MFCC_SHARE = 0.5
"""Of cepstral coefficients beside what the encoder hears, which sees less of when a sound begins."""
KEPT = 0.95


@numba.njit(cache=True)
def warped(cost_NM):
    """For each of N frames the mean number of those that the cheapest path puts beside it, and its cost a frame."""
    rows, columns = cost_NM.shape
    total, came = np.full((rows, columns), np.inf), np.zeros((rows, columns), np.int8)
    total[0, 0] = cost_NM[0, 0]
    for i in range(rows):
        for j in range(columns):
            if i and j and total[i - 1, j - 1] + 1.6 * cost_NM[i, j] < total[i, j]:
                total[i, j], came[i, j] = total[i - 1, j - 1] + 1.6 * cost_NM[i, j], 0
            if i and total[i - 1, j] + 1.1 * cost_NM[i, j] < total[i, j]:
                total[i, j], came[i, j] = total[i - 1, j] + 1.1 * cost_NM[i, j], 1
            if j and total[i, j - 1] + 1.1 * cost_NM[i, j] < total[i, j]:
                total[i, j], came[i, j] = total[i, j - 1] + 1.1 * cost_NM[i, j], 2
    i, j = rows - 1, columns - 1
    summed, count = np.zeros(rows), np.zeros(rows)
    while True:
        summed[i] += j
        count[i] += 1
        if i == 0 and j == 0:
            return summed / count, total[rows - 1, columns - 1] / (rows + columns)
        step = came[i, j]
        i, j = i - (step != 2), j - (step != 1)


def heard(parts: ModelParts, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of the encoder (T, D) and cepstral coefficients (T, 12), of length 1 each, 50 frames a second."""
    assert parts.acoustic is not None
    log_mel_MT = parts.acoustic.log_mel(torch.from_numpy(samples))
    features = parts.acoustic.encode([log_mel_MT], [num_tokens(len(samples))], 64)[0]
    frames = features.unflatten(-1, (-1, parts.acoustic.encoder.config.d_model)).flatten(0, 1)
    bands = torch.arange(len(log_mel_MT)) + 0.5
    cosines = torch.cos(torch.pi / len(log_mel_MT) * torch.arange(1, 13)[:, None] * bands)
    cepstra = (cosines @ log_mel_MT).T.unfold(0, 2, 2).mean(-1)
    frames_in_both = min(len(frames), len(cepstra))
    return unit(frames[:frames_in_both]), unit(cepstra[:frames_in_both])


def unit(x_TD: torch.Tensor) -> np.ndarray:
    """Standardised over time, and then of length 1."""
    x_TD = (x_TD - x_TD.mean(0)) / (x_TD.std(0) + 1e-5)
    return torch.nn.functional.normalize(x_TD, dim=-1).double().numpy()


@torch.inference_mode()
def aligned(
    parts: ModelParts, recording: np.ndarray, spoken: np.ndarray, codes: list[int]
) -> tuple[list[float], float]:
    """Times in the recording, four to a code of what was spoken, and how badly the two fit."""
    (ours, our_cepstra), (theirs, their_cepstra) = heard(parts, spoken), heard(parts, recording)
    at, cost = warped(1 - ours @ theirs.T + MFCC_SHARE * (1 - our_cepstra @ their_cepstra.T))
    smooth = np.maximum.accumulate(np.convolve(np.pad(at, 2, mode="edge"), np.ones(5) / 5, "valid"))
    wanted = 4 * len(codes)
    smooth = np.concatenate([smooth, smooth[-1] + 1 + np.arange(max(0, wanted - len(smooth)))])[:wanted]
    return ((smooth + 0.5) * FRAME).round(4).tolist(), cost


def takes(spoken: Path, rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Path, list[int] | None]]:
    """Rows of the manifest that the other voice has said, where, and in which codes, if that is known."""
    if spoken.is_dir():
        numbered = ((row, spoken / f"{number}.wav", None) for number, row in enumerate(rows))
        return [take for take in numbered if take[1].exists()]
    said = {}
    for line in spoken.read_text(encoding="utf-8").splitlines():
        take = json.loads(line)
        audio, text = take["messages"][-1]["content"]
        said[text] = Path(audio), take["codes"]
    return [(row, *said[row["text"]]) for row in rows if row["text"] in said]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("spoken", type=Path)
    args = parser.parse_args()
    parts = load_parts(args.model, with_detokenizer=False)
    rows = read_recordings(args.manifest)
    pairs = []
    for row, spoken, codes in track(takes(args.spoken, rows), "aligning", console=Console(stderr=True)):
        samples = load_audio(spoken)
        codes = codes or parts.semantic.encode([samples])[0].tolist()
        times, cost = aligned(parts, load_audio(row["audio"]), samples, codes)
        pairs.append((cost, row | {"codes": codes, "times": times}))
    limit = np.quantile([cost for cost, _ in pairs], KEPT) if pairs else 0.0
    for cost, row in pairs:
        if cost <= limit:
            json.dump(row, sys.stdout)
            print()


if __name__ == "__main__":
    main()
