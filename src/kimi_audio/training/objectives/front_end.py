"""Warm-up of the listening front end: acoustic encoder and adaptor learn to speak the LLM's language by CTC.

Each 12.5 Hz adaptor output is compared (cosine) with the LLM's own embeddings of the text tokens, or a learned blank, and
trained by connectionist temporal classification on the transcript. Afterwards the LLM meets something like noisy words,
placed where they were said, in the space that it knows. The report trains the adaptor with the LLM from the start; at small
size this stage makes that start many times shorter. Sounds and emotions are spelt the same way: their name is the target.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np
import tiktoken
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kimi_audio.audio.log_mel import SAMPLE_RATE, whisper_log_mel
from kimi_audio.checkpoint.convert import read_json, read_tensors
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import Adaptor
from kimi_audio.text import QWEN_SPLIT, TextTokenizer
from kimi_audio.tokenizer.acoustic import FRAMES_PER_TOKEN, TOKEN_SAMPLES, num_tokens
from kimi_audio.tokenizer.whisper import WhisperEncoder, WhisperEncoderConfig
from kimi_audio.training.objective import Objective, ParameterGroup

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
ENCODER = "whisper-large-v3"
READOUT = "ctc_readout.safetensors"
"""Blank and temperature of the readout, beside the model, for a second round of this stage; the model needs neither."""
MIN_COUNT = 8


@dataclass(frozen=True)
class Clip:
    """One training item: where its samples are and the token classes to spell."""

    store: int
    row: int
    tokens: int
    target: list[int]


class Spelling:
    """BPE restricted to tokens that the transcripts use often; rarer words are spelt with shorter ones.

    Class 0 is CTC's blank, class c > 0 stands for text id `ids[c - 1]`.
    """

    def __init__(self, tokenizer: TextTokenizer, texts: list[str]) -> None:
        counts = Counter(token for text in texts for token in tokenizer.encode(" " + text))
        often = {token for token, count in counts.items() if count >= MIN_COUNT}
        ranks = {token: rank for token, rank in tokenizer.ranks.items() if rank in often or len(token) == 1}
        self._bpe = tiktoken.Encoding("spelling", pat_str=QWEN_SPLIT, mergeable_ranks=ranks, special_tokens={})
        used = sorted({token for text in texts for token in self._bpe.encode_ordinary(" " + text)})
        self.ids = used
        self._class_of = {token: number for number, token in enumerate(used, start=1)}

    def encode(self, text: str) -> list[int] | None:
        """Classes of a text, None if it needs a token that the transcripts never used."""
        classes = [self._class_of.get(token) for token in self._bpe.encode_ordinary(" " + text)]
        return None if None in classes else [c for c in classes if c is not None]

    def decode(self, classes: list[int]) -> str:
        """Text of CTC's best path: repeats merged, blanks dropped."""
        path = np.array([0, *classes])
        kept = path[1:][(path[1:] != path[:-1]) & (path[1:] > 0)]
        return self._bpe.decode([self.ids[c - 1] for c in kept]).strip()


class FrontEnd(nn.Module):
    """Encoder, adaptor, and the CTC readout against frozen token embeddings."""

    def __init__(self, encoder: WhisperEncoder, adaptor: Adaptor, embeddings_VD: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.adaptor = adaptor
        self.register_buffer("embeddings", F.normalize(embeddings_VD, dim=-1), persistent=False)
        self.blank = nn.Parameter(F.normalize(embeddings_VD.mean(0), dim=-1))
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def features(self, log_mel_BMT: Tensor, tokens_B: Tensor) -> Tensor:
        """Acoustic features at 12.5 Hz, (B, T, 4 · d); `tokens_B` counts each row's positions."""
        frames = FRAMES_PER_TOKEN * int(tokens_B.max())
        mask = torch.arange(frames)[None] < FRAMES_PER_TOKEN * tokens_B[:, None]
        hidden_BTD = self.encoder(log_mel_BMT, num_frames=frames, mask=mask[:, None, None])
        return hidden_BTD.unflatten(1, (-1, FRAMES_PER_TOKEN)).flatten(2)

    def readout(self, features_BTF: Tensor) -> Tensor:
        """Log-probabilities of blank and tokens, (B, T, 1 + V)."""
        z_BTD = F.normalize(self.adaptor(features_BTF), dim=-1)
        classes = torch.cat([F.normalize(self.blank, dim=0)[None], self.embeddings])
        return (z_BTD @ classes.T * self.log_scale.exp()).log_softmax(-1)

    def forward(self, log_mel_BMT: Tensor, tokens_B: Tensor) -> Tensor:
        return self.readout(self.features(log_mel_BMT, tokens_B))


class FrontEndObjective(Objective):
    """CTC over the clips of several waveform stores.

    Args:
        folder: model folder to start from; `save` writes a copy of it with the trained encoder and adaptor.
        stores: train stores, each with the number of times that an epoch passes over it.
        dev: stores for `evaluate`, by name.
        batch_seconds: sound in a batch, padding included.
        augment: changes a clip's samples; gets them and a random generator.
        encoder_scale: the pretrained encoder's learning rate, as a share of the new parts'. With 0 the encoder is frozen
            and runs once per clip: then thousands of small steps, which CTC needs to find its first alignment, are cheap.
        max_clips: train on so many clips, drawn at random; None takes all.
    """

    def __init__(self, folder: Path, stores: list[tuple[WaveformStore, int]], dev: dict[str, WaveformStore],
                 batch_seconds: float = 60.0, seed: int = 0, augment: Augment | None = None,
                 encoder_scale: float = 0.1, max_clips: int | None = None) -> None:
        self.folder, self.seed, self.augment, self.encoder_scale = folder, seed, augment, encoder_scale
        self.batch_tokens = int(batch_seconds * SAMPLE_RATE / TOKEN_SAMPLES)
        self.stores, self.dev = [store for store, _ in stores], dev
        self.spelling = Spelling(TextTokenizer.from_file(folder / "tiktoken.model"),
                                 [spoken(row) for store in self.stores for row in store.rows])  # fmt: skip
        self.model = read_front_end(folder, self.spelling.ids)
        self.n_mels = self.model.encoder.config.num_mel_bins
        self.clips = [clip for number, (store, times) in enumerate(stores)
                      for clip in self._clips(number, store) for _ in range(times)]  # fmt: skip
        if max_clips is not None:
            self.clips = random.Random(seed).sample(self.clips, min(max_clips, len(self.clips)))
        self._remembered: dict[tuple[int, int], Tensor] = {}

    def _clips(self, number: int, store: WaveformStore) -> Iterator[Clip]:
        """Clips whose target is spellable and fits into their length."""
        for row in range(len(store)):
            target, tokens = self.spelling.encode(spoken(store.rows[row])), num_tokens(store.length(row))
            if target is not None and len(target) + sum(a == b for a, b in pairwise(target)) <= tokens:
                yield Clip(number, row, tokens, target)

    def batches(self, start: int) -> Iterator[list[Clip]]:
        """Clips of similar length together, in an order drawn anew each epoch."""
        epoch = 0
        while True:
            order = self._epoch(epoch)
            yield from order[start:]
            start = max(0, start - len(order))
            epoch += 1

    def _epoch(self, epoch: int) -> list[list[Clip]]:
        rng = random.Random(f"{self.seed} {epoch}")
        clips = sorted(self.clips, key=lambda clip: clip.tokens * rng.uniform(0.85, 1.15))
        batches: list[list[Clip]] = [[]]
        longest = 0
        for clip in clips:
            longest = max(longest, clip.tokens)
            if batches[-1] and longest * (len(batches[-1]) + 1) > self.batch_tokens:
                batches.append([])
                longest = clip.tokens
            batches[-1].append(clip)
        rng.shuffle(batches)
        return batches

    def loss(self, batch: list[Clip]) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        if self.encoder_scale:
            log_mel_BMT, tokens_B = self._inputs(self._sounds(batch))
            log_probs = self.model(spec_augment(log_mel_BMT), tokens_B)
        else:
            features = self._remember(batch)
            tokens_B = torch.tensor([len(feature) for feature in features])
            log_probs = self.model.readout(nn.utils.rnn.pad_sequence(features, batch_first=True).float())
        targets = [clip.target for clip in batch]
        loss = F.ctc_loss(log_probs.transpose(0, 1), torch.tensor([c for t in targets for c in t]), tokens_B,
                          torch.tensor([len(t) for t in targets]), zero_infinity=True)  # fmt: skip
        return loss, {"tokens": float(tokens_B.sum())}

    def _sounds(self, batch: list[Clip]) -> list[np.ndarray]:
        sounds = [self.stores[clip.store].samples(clip.row) for clip in batch]
        if self.augment is None:
            return sounds
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        return [self.augment(samples, rng) for samples in sounds]

    def _remember(self, batch: list[Clip]) -> list[Tensor]:
        """Features (T, 4 · d) of each clip from the frozen encoder, computed the first time it is met."""
        new = [clip for clip in batch if (clip.store, clip.row) not in self._remembered]
        if new:
            with torch.no_grad():
                log_mel_BMT, tokens_B = self._inputs([self.stores[clip.store].samples(clip.row) for clip in new])
                for clip, feature in zip(new, self.model.features(log_mel_BMT, tokens_B).half(), strict=True):
                    self._remembered[clip.store, clip.row] = feature[: clip.tokens].clone()
        return [self._remembered[clip.store, clip.row] for clip in batch]

    def _inputs(self, sounds: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Batched log-mels (B, n_mels, 8·T + 2), the same numbers as after padding to 30 s, and tokens per row."""
        tokens_B = torch.tensor([num_tokens(len(samples)) for samples in sounds])
        length = (int(tokens_B.max()) + 1) * TOKEN_SAMPLES
        padded = torch.zeros(len(sounds), length)
        for row, samples in zip(padded, sounds, strict=True):
            row[: len(samples)] = torch.from_numpy(samples)
        frames = 2 * FRAMES_PER_TOKEN * int(tokens_B.max()) + 2
        return whisper_log_mel(padded, self.n_mels)[..., :frames], tokens_B

    def evaluate(self) -> dict[str, float]:
        """Word error rate of the best CTC path on each dev store."""
        return {f"wer_{name}": self._word_errors(store) for name, store in self.dev.items()}

    def _word_errors(self, store: WaveformStore) -> float:
        references, hypotheses = [], []
        for first in range(0, len(store), 16):
            rows = range(first, min(first + 16, len(store)))
            log_mel_BMT, tokens_B = self._inputs([store.samples(row) for row in rows])
            paths = self.model(log_mel_BMT, tokens_B).argmax(-1)
            hypotheses += [self.spelling.decode(path[:n].tolist()) for path, n in zip(paths, tokens_B, strict=True)]
            references += [spoken(store.rows[row]) for row in rows]
        return float(jiwer.wer(references, hypotheses))

    def parameter_groups(self) -> list[ParameterGroup]:
        new = [p for name, p in self.model.named_parameters() if not name.startswith("encoder.")]
        # Whisper's position table is a fixed sinusoid.
        pretrained = [p for name, p in self.model.encoder.named_parameters() if name != "embed_positions.weight"]
        groups = [ParameterGroup("new", new), ParameterGroup("encoder", pretrained, self.encoder_scale)]
        return groups if self.encoder_scale else groups[:1]

    def save(self, folder: Path) -> None:
        """A copy of the starting folder with the trained encoder and adaptor."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        write_front_end(self.model, folder)


def spoken(row: dict) -> str:
    """What a clip's frames should spell: the transcript, then the name of the sound or emotion if it has one."""
    return " ".join(part for part in (row.get("text"), row.get("label")) if part)


def spec_augment(log_mel_BMT: Tensor, time_masks: int = 2, longest: int = 40, bands: int = 12) -> Tensor:
    """SpecAugment: blank out stretches of time (10 ms frames) and one band of mels, per row, in a copy."""
    masked = log_mel_BMT.clone()
    for row in masked:
        for _ in range(time_masks):
            width = int(torch.randint(min(longest, row.shape[1] // 8) + 1, ()))
            start = int(torch.randint(row.shape[1] - width, ()))
            row[:, start : start + width] = row.min()
        band = int(torch.randint(bands + 1, ()))
        low = int(torch.randint(row.shape[0] - band, ()))
        row[low : low + band] = row.min()
    return masked


def read_front_end(folder: Path, ids: list[int]) -> FrontEnd:
    """Encoder, adaptor and the embeddings of `ids` of a model folder, in float32."""
    config = KimiAudioConfig.from_dict(read_json(folder / "config.json"))
    tensors = read_tensors(folder)
    adaptor = Adaptor(config)
    prefix = "model.vq_adaptor."
    adaptor.load_state_dict({k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)})
    encoder = WhisperEncoder(WhisperEncoderConfig.from_dict(read_json(folder / ENCODER / "config.json")))
    encoder.load_state_dict({k.removeprefix("model.encoder."): v.float() for k, v in read_tensors(folder / ENCODER).items()})
    model = FrontEnd(encoder, adaptor, tensors["model.embed_tokens.weight"].float()[ids])
    if (readout := folder / READOUT).exists():
        model.load_state_dict(load_file(readout), strict=False)
    return model


def write_front_end(model: FrontEnd, folder: Path) -> None:
    """Put a trained front end into a model folder.

    CTC looked only at directions; the adaptor's norm is scaled so that a feature, times the √2 of the input sum, is about
    as long as a token embedding.
    """
    tensors = read_tensors(folder)
    scale = tensors["model.embed_tokens.weight"].float().norm(dim=-1).median() / (
        2**0.5 * model.adaptor.layers[4].weight.norm()  # type: ignore[union-attr]
    )
    for name, value in model.adaptor.state_dict().items():
        tensors[f"model.vq_adaptor.{name}"] = value * scale if name.startswith("layers.4.") else value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    save_file({"blank": model.blank.detach(), "log_scale": model.log_scale.detach()}, folder / READOUT)
    encoder = {f"model.encoder.{name}": value for name, value in model.encoder.state_dict().items()}
    save_file(encoder, folder / ENCODER / "model.safetensors", {"format": "pt"})
