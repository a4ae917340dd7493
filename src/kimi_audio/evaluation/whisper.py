"""Whispers, the recognisers that everybody compares with, from folders in Hugging Face layout.

    FasterWhisper(Path("whisper-base")).transcribe(Path("a.wav"), "en")
    WhisperAdapter(Path("whisper-base")).generate(sample, benchmark).text

All decode greedily in float32: by faster-whisper, or by transformers for figures that others made so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kimi_audio.audio.decode import load_audio
from kimi_audio.errors import CheckpointError, ConfigError
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.samples import Output, Sample
from kimi_audio.evaluation.store import fingerprint

RATE = 16_000
WINDOW = 30 * RATE
COMPUTE_TYPE = "float32"
GREEDY = {"beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
"""How faster-whisper decodes here."""
GREEDY_BY_TRANSFORMERS = {"do_sample": False, "num_beams": 1, "return_timestamps": False}
FIRST_MULTILINGUAL_SIZE = 51_865
"""Whispers with fewer token ids know English only, and are told no language."""


class FasterWhisper:
    """A Whisper, run by faster-whisper on `device`: `cpu`, `cuda` or `auto`.

    Raises:
        CheckpointError: when a file of the folder is missing.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        from faster_whisper import WhisperModel

        with converted_whisper(folder) as converted:
            self._model = WhisperModel(str(converted), device=device, compute_type=COMPUTE_TYPE)

    def transcribe(self, path: Path, language: str) -> str:
        """What is said in a sound file of any length."""
        segments, _ = self._model.transcribe(load_audio(path, RATE), language=language, **GREEDY)
        return " ".join(segment.text.strip() for segment in segments)


@contextmanager
def converted_whisper(folder: Path, quantization: str = "float32") -> Iterator[Path]:
    """`folder`, in Hugging Face layout, as a CTranslate2 folder that lasts as long as the context."""
    from ctranslate2.converters import TransformersConverter

    _check_whisper(folder)
    quiet_transformers()
    with tempfile.TemporaryDirectory() as target:
        converter = TransformersConverter(str(folder), copy_files=["tokenizer.json"])
        yield Path(converter.convert(target, quantization=quantization, force=True))


class WhisperAdapter:
    """A Whisper under test, by faster-whisper."""

    takes_instructions = speaks = False

    def __init__(self, folder: Path) -> None:
        self.name, self.fingerprint = folder.resolve().name, fingerprint(folder)
        self._whisper = FasterWhisper(folder)

    def recipe(self, benchmark: Benchmark) -> dict[str, Any]:
        return GREEDY | {"compute_type": COMPUTE_TYPE}

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        texts = [self._whisper.transcribe(path, benchmark.language) for path in sample.to_transcribe()]
        return Output(" ".join(texts))


class TransformersWhisperAdapter:
    """A Whisper under test, by transformers, 30 s at a time, without time stamps."""

    takes_instructions = speaks = False

    def __init__(self, folder: Path) -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

        _check_whisper(folder)
        quiet_transformers()
        self.name, self.fingerprint = f"{folder.resolve().name} (transformers)", fingerprint(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        model: Any = WhisperForConditionalGeneration.from_pretrained(str(folder), torch_dtype=torch.float32)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._features = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
        # A folder without generation_config.json leaves these to guessing.
        defaults = self._model.generation_config
        defaults.decoder_start_token_id = self._id("<|startoftranscript|>")
        defaults.eos_token_id = defaults.pad_token_id = self._id("<|endoftext|>")
        defaults.forced_decoder_ids = None

    def recipe(self, benchmark: Benchmark) -> dict[str, Any]:
        return GREEDY_BY_TRANSFORMERS | {"window_seconds": WINDOW / RATE}

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        texts = [
            self._window(samples_L[start : start + WINDOW], benchmark.language)
            for samples_L in (load_audio(path, RATE) for path in sample.to_transcribe())
            for start in range(0, len(samples_L), WINDOW)
        ]
        return Output(" ".join(text for text in texts if text))

    def _window(self, samples_L: np.ndarray, language: str) -> str:
        import torch

        multilingual = self._model.config.vocab_size >= FIRST_MULTILINGUAL_SIZE
        told = [f"<|{language}|>", "<|transcribe|>"] if multilingual else []
        prompt = [self._id(token) for token in ("<|startoftranscript|>", *told, "<|notimestamps|>")]
        features = self._features(samples_L, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        with torch.inference_mode():
            ids_1L = self._model.generate(
                **features.to(self._model.device),
                decoder_input_ids=torch.tensor([prompt], device=self._model.device),
                max_new_tokens=self._model.config.max_target_positions // 2,
                **GREEDY_BY_TRANSFORMERS,
            )
        return self._tokenizer.decode(ids_1L[0].tolist(), skip_special_tokens=True).strip()

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ConfigError(f"{self.name} knows no {token}")
        return number


def quiet_transformers() -> None:
    """No progress bars and warnings among the results."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _check_whisper(folder: Path) -> None:
    missing = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / name).exists()]
    if missing:
        raise CheckpointError(f"{folder}: a Whisper folder needs {', '.join(missing)}")
