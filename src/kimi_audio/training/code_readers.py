"""What reads a semantic tokenizer's codes while it is trained, and so decides what they must tell.

    reader = LetterReader(d_model, mels)                     # letters and log-mel
    reader = DecoderReader(tokenizer, Path("whisper-tiny"))  # the transcript, by the rest of a Whisper
    targets = reader.targets(log_mels, texts, frames)
    reading = reader.read(states_BTD, valid_BT, targets)

`LetterReader`, a small convolutional network, reads off the codes what was said, letter by letter (connectionist
temporal classification), and how it sounded, the log-mel at 50 Hz. The first keeps words apart; the second, when and
how clearly they are said, for the detokenizer. It is told the recording's mean log-mel, so that codes need not carry
the speaker and the microphone. `DecoderReader` is the report's way (§2.1, SPEC §6): codes are what a Whisper needs to
write the transcript.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.checkpoint.files import read_json, read_tensors
from kimi_audio.errors import CheckpointError
from kimi_audio.tokenizer.semantic import SemanticTokenizer, block_causal_mask
from kimi_audio.tokenizer.whisper import WhisperLayer
from kimi_audio.training.ctc import LETTERS, best_path, ctc_loss, letter_classes, letters_of, positions_needed
from kimi_audio.training.whisper_decoder import WhisperDecoder, WhisperDecoderConfig, WhisperText

FRAMES_PER_CODE = 4
"""Positions at which letters and log-mel are read, 50 a second."""
MEL_PER_CODE = 8
IGNORED = -100
"""Label of what a decoder need not predict."""


class Reading(NamedTuple):
    """Losses by name, to be added, and the texts read; none in training, or from a reader that is told the words."""

    losses: dict[str, Tensor]
    texts: list[str]


class CodeReader(nn.Module, ABC):
    """Reads what was said off the vectors of codes."""

    @abstractmethod
    def fits(self, text: str, codes: float) -> bool:
        """Whether a transcript can be read off so many codes."""

    @abstractmethod
    def targets(self, log_mels: Sequence[Tensor], texts: Sequence[str], frames: int) -> Any:
        """What is to be read of recordings with these log-mels (n_mels, T), to be padded to `frames` of 10 ms."""

    @abstractmethod
    def read(self, states_BTD: Tensor, valid_BT: Tensor, targets: Any) -> Reading:
        """Compare what can be read with the targets.

        Args:
            states_BTD: vectors of codes, 12.5 Hz.
            valid_BT: bool (B, frames of 10 ms), False for padding.
        """


class ReaderBlock(nn.Module):
    """A residual convolution over ± 2 positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 5, padding=2)
        self.out = nn.Linear(width, width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        y_BTW = self.conv(self.norm(x_BTW).transpose(1, 2)).transpose(1, 2)
        return x_BTW + self.out(F.gelu(y_BTW))


class LetterTargets(NamedTuple):
    """Mean log-mels (B, n_mels), spectra to be read (B, T, n_mels) at 50 Hz, and classes of the letters."""

    mean: Tensor
    spectrum: Tensor
    letters: list[list[int]]


class LetterReader(CodeReader):
    """Letters and log-mel at 50 Hz, from the codes' vectors at 12.5 Hz; convolutions, so that codes tell what is near.

    Args:
        d_model: of the codes.
        mels: log-mel bins.
    """

    def __init__(self, d_model: int, mels: int, width: int = 256, blocks: int = 4) -> None:
        super().__init__()
        self.spread = nn.Conv1d(d_model, FRAMES_PER_CODE * width, 3, padding=1)
        self.speaker = nn.Linear(mels, width)
        self.blocks = nn.ModuleList(ReaderBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.letters = nn.Linear(width, 1 + len(LETTERS))
        self.mel = nn.Linear(width, mels)

    def forward(self, states_BTD: Tensor, mean_BM: Tensor) -> tuple[Tensor, Tensor]:
        """Letters' log-probabilities, blank first, float32 (B, 4 T, 1 + letters), and log-mels (B, 4 T, n_mels)."""
        spread_BTN = self.spread(states_BTD.transpose(1, 2)).transpose(1, 2)
        x_BTW = spread_BTN.unflatten(-1, (FRAMES_PER_CODE, -1)).flatten(1, 2)
        for block in self.blocks:
            x_BTW = block(x_BTW)
        letters_BTC = self.letters(self.norm(x_BTW)).float().log_softmax(-1)
        return letters_BTC, self.mel(self.norm(x_BTW + self.speaker(mean_BM)[:, None])).float()

    def fits(self, text: str, codes: float) -> bool:
        return 0 < positions_needed(letter_classes(text)) <= FRAMES_PER_CODE * codes

    def targets(self, log_mels: Sequence[Tensor], texts: Sequence[str], frames: int) -> LetterTargets:
        """The spectrum to be read is the log-mel at 50 Hz less its mean over the recording, in units of its spread."""
        means, spectra = zip(*map(_spectrum, log_mels), strict=True)
        positions = frames * FRAMES_PER_CODE // MEL_PER_CODE
        padded = [F.pad(spectrum_TM, (0, 0, 0, positions - len(spectrum_TM))) for spectrum_TM in spectra]
        return LetterTargets(torch.stack(means), torch.stack(padded), [letter_classes(text) for text in texts])

    def read(self, states_BTD: Tensor, valid_BT: Tensor, targets: LetterTargets) -> Reading:
        device = states_BTD.device
        letters_BTC, mel_BTM = self(states_BTD, targets.mean.to(device))
        valid_BT = valid_BT[:, :: MEL_PER_CODE // FRAMES_PER_CODE]
        log_probs = [letters_BTC[row, : int(valid_BT[row].sum())] for row in range(len(valid_BT))]
        spectrum_loss = F.mse_loss(mel_BTM[valid_BT], targets.spectrum.to(device)[valid_BT])
        classes = [] if self.training else [log_probs_TC.argmax(-1).tolist() for log_probs_TC in log_probs]
        texts = [letters_of(best_path(path)) for path in classes]
        return Reading({"letters": ctc_loss(log_probs, targets.letters), "mel": spectrum_loss}, texts)


def _spectrum(log_mel_MT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (n_mels,) of a log-mel over time, and what is to be read of it (T / 2, n_mels)."""
    mel_TM = F.avg_pool1d(log_mel_MT, MEL_PER_CODE // FRAMES_PER_CODE).T
    mean_M = mel_TM.mean(0)
    centred_TM = mel_TM - mean_M
    return mean_M, centred_TM / centred_TM.std().clamp_min(1e-3)


class DecoderTargets(NamedTuple):
    """Decoder input (B, L) and the ids to predict (B, L), `IGNORED` elsewhere."""

    token_ids: Tensor
    labels: Tensor


class DecoderReader(CodeReader):
    """Whisper's encoder layers above the codebook, at 12.5 Hz, and its text decoder.

    Args:
        tokenizer: the lower half, whose width the Whisper must have.
        folder: a Hugging Face Whisper folder with `tokenizer.json`.

    Raises:
        CheckpointError: when something is missing there, or of another size.
    """

    positions: Tensor

    def __init__(self, tokenizer: SemanticTokenizer, folder: Path) -> None:
        super().__init__()
        config, tensors, ours = read_json(folder / "config.json"), read_tensors(folder), tokenizer.config
        if config.get("d_model") != ours.d_model:
            raise CheckpointError(f"{folder}: d_model is {config.get('d_model')}; the tokenizer needs {ours.d_model}.")
        self.text, self.config = WhisperText(folder), ours
        above = range(ours.quantize_position, config["encoder_layers"])
        self.upper = nn.ModuleList(WhisperLayer(ours) for _ in above)
        self.layer_norm = nn.LayerNorm(ours.d_model)
        self.decoder = WhisperDecoder(WhisperDecoderConfig.from_dict(config))
        for number, layer in zip(above, self.upper, strict=True):
            layer.load_state_dict(_under(tensors, f"model.encoder.layers.{number}."))
        self.layer_norm.load_state_dict(_under(tensors, "model.encoder.layer_norm."))
        self.decoder.load_state_dict(_under(tensors, "model.decoder."))
        self.register_buffer("positions", tokenizer.embed_positions.weight.detach().clone())

    def fits(self, text: str, codes: float) -> bool:
        return bool(text.strip()) and len(self.text.encode(text)) <= self.decoder.config.max_target_positions

    def targets(self, log_mels: Sequence[Tensor], texts: Sequence[str], frames: int) -> DecoderTargets:
        return teacher_forcing([self.text.encode(text) for text in texts], len(self.text.start), self.text.end)

    def read(self, states_BTD: Tensor, valid_BT: Tensor, targets: DecoderTargets) -> Reading:
        valid_BT, block = valid_BT[:, ::MEL_PER_CODE], self.config.quantize_causal_block_size
        mask = block_causal_mask(valid_BT, block and block // self.config.pooling_kernel_size)
        x_BTD = states_BTD + self.positions[: states_BTD.shape[1]]
        for layer in self.upper:
            x_BTD = layer(x_BTD, mask)
        labels_BL = targets.labels.to(x_BTD.device)
        said_BLD = self.decoder(targets.token_ids.to(x_BTD.device), self.layer_norm(x_BTD), valid_BT)
        wanted_BL = labels_BL != IGNORED
        logits_nV = self.decoder.logits(said_BLD[wanted_BL]).float()
        return Reading({"recognition": F.cross_entropy(logits_nV, labels_BL[wanted_BL])}, [])


def teacher_forcing(ids: Sequence[Sequence[int]], prompt: int, end: int) -> DecoderTargets:
    """Decoder input and labels of ids that begin with `prompt` start marks, which are not predicted."""
    longest = max(map(len, ids)) - 1
    inputs_BL, labels_BL = torch.full((len(ids), longest), end), torch.full((len(ids), longest), IGNORED)
    for row, sequence in enumerate(ids):
        inputs_BL[row, : len(sequence) - 1] = torch.tensor(sequence[:-1])
        labels_BL[row, prompt - 1 : len(sequence) - 1] = torch.tensor(sequence[prompt:])
    return DecoderTargets(inputs_BL, labels_BL)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value.float() for name, value in tensors.items() if name.startswith(prefix)}
