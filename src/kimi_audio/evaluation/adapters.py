"""Models as things that answer samples, one short class for each way to reach a model.

    adapter = make_adapter("whisper:models/whisper-base")
    adapter.generate(sample, benchmark).text

A benchmark's `sampling` has the official names; endpoints get those that they know by their own names. `ACCEPTED` lists
what can be named. Any other model is measured as a program, see `command.py`.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.hub import resolve
from kimi_audio.errors import CheckpointError, ConfigError, DataError
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.command import CommandAdapter, hashed, whole_options
from kimi_audio.evaluation.endpoint import Endpoint, audio_part, wav_bytes
from kimi_audio.evaluation.evaluate import Adapter
from kimi_audio.evaluation.samples import Output, Sample
from kimi_audio.messages import Message

ACCEPTED = """\
tiny                              the bundled model
FOLDER or OWNER/NAME              any other Kimi-Audio, here or on the hub
recordings                        the people who recorded the texts, where texts are read aloud
whisper:FOLDER                    a Whisper in Hugging Face layout, by faster-whisper
whisper-hf:FOLDER                 the same, by transformers
openai:MODEL@URL                  chat about sounds with an OpenAI-compatible endpoint
openai-speech:MODEL@URL           the same, where the model speaks
openai-transcribe:MODEL@URL       transcription by an OpenAI-compatible endpoint
command:PROGRAM ARGUMENTS         a program that reads and writes JSON lines
command-speech:PROGRAM ARGUMENTS  the same, where the program speaks"""

TRANSCRIBE = "Please transcribe the audio. Answer with the words that are said, and nothing else."
"""What is asked of chat models where a benchmark wants a transcript."""
RATE, SPEECH_RATE = 16_000, 24_000
WINDOW = 30 * RATE
FIRST_MULTILINGUAL_SIZE = 51_865
"""Whispers with fewer token ids know English only, and are told no language."""


def make_adapter(spec: str, *, seed: int = 0, timeout: float = 600.0) -> Adapter:
    """The model that a spec names, see `ACCEPTED`; `timeout` in seconds is for programs and endpoints.

    Raises:
        ConfigError: for a spec that names no model.
        CheckpointError: for a folder that holds no model that can be loaded.
    """
    kind, colon, rest = spec.partition(":")
    if not colon:
        return RecordingAdapter() if spec == "recordings" else KimiAudioAdapter(None if spec == "tiny" else spec, seed)
    if kind in ("whisper", "whisper-hf"):
        if not rest or not Path(rest).is_dir():
            raise ConfigError(f"model {spec!r}: there is no folder {rest!r}")
        return WhisperAdapter(Path(rest)) if kind == "whisper" else TransformersWhisperAdapter(Path(rest))
    if kind == "openai-transcribe":
        return TranscriptionAdapter(Endpoint.from_spec(rest, timeout=timeout))
    if kind in ("openai", "openai-speech"):
        return ChatAdapter(Endpoint.from_spec(rest, timeout=timeout), seed, speaks=kind == "openai-speech")
    if kind in ("command", "command-speech"):
        return CommandAdapter(rest, timeout, speaks=kind == "command-speech")
    raise ConfigError(f"model {spec!r}; accepted are\n{ACCEPTED}")


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that change with any weight in `folder` (all its safetensors files, by content)."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


def quiet_transformers() -> None:
    """No progress bars and warnings among the results."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


class KimiAudioAdapter:
    """A Kimi-Audio: a folder, a hub id, or None for the bundled one."""

    takes_instructions = True

    def __init__(self, name: str | None, seed: int = 0) -> None:
        from kimi_audio import KimiAudio

        try:
            folder = resolve(name)
        except CheckpointError as error:
            raise ConfigError(f"model {name or 'tiny'!r}: {error} Accepted are\n{ACCEPTED}") from error
        self.name = Path(name).resolve().name if name else folder.name
        self.fingerprint = fingerprint(folder)
        self._seed = seed
        self._model = KimiAudio.from_pretrained(folder, dtype="auto")
        self.speaks = self._model.detokenizer is not None

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        options = whole_options(benchmark.sampling)
        if sample.instruction is None and not benchmark.speaks:
            return Output(" ".join(self._model.transcribe(path, **options).text for path in _sounds(sample)))
        asked = [Message("user", "text", sample.instruction)] if sample.instruction else []
        messages = asked + [Message("user", "audio", path) for path in sample.audios]
        if benchmark.reads_aloud:
            return self._read(sample.reference)
        if not benchmark.speaks:
            return Output(self._model.generate(messages, seed=self._seed, break_loops=True, **options).text)
        return self._speak(messages, options)

    def _read(self, text: str) -> Output:
        started, first_sound, parts = time.perf_counter(), None, [np.zeros(0, np.float32)]
        for part in self._model.say(text, seed=self._seed):
            first_sound = first_sound or time.perf_counter() - started
            parts.append(part)
        return Output(text, np.concatenate(parts), self._model.speech_rate, first_sound=first_sound)

    def _speak(self, messages: list[Message], options: dict[str, Any]) -> Output:
        started, first_sound = time.perf_counter(), None
        answer = self._model.stream(messages, "both", seed=self._seed, **options)
        for piece in answer:
            if first_sound is None and isinstance(piece, np.ndarray):
                first_sound = time.perf_counter() - started
        reply = answer.reply
        return Output(reply.text, reply.audio, self._model.speech_rate, first_sound=first_sound)


class RecordingAdapter:
    """The people who recorded a benchmark of texts read aloud: what a model is to be measured by."""

    name, fingerprint, takes_instructions, speaks = "recordings", "recordings", True, True

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        if not sample.fields.get("recording"):
            raise DataError(f"{sample.id}: there is no recording of somebody reading this")
        return Output(sample.reference, load_audio(sample.fields["recording"], SPEECH_RATE), SPEECH_RATE)


class WhisperAdapter:
    """A Whisper in Hugging Face layout, decoded greedily by faster-whisper in float32."""

    takes_instructions = speaks = False

    def __init__(self, folder: Path) -> None:
        from faster_whisper import WhisperModel

        self.name, self.fingerprint = folder.resolve().name, fingerprint(folder)
        with converted_whisper(folder) as converted:
            self._model = WhisperModel(str(converted), device="auto", compute_type="float32")

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        return Output(" ".join(self._transcribe(path, benchmark.language) for path in _sounds(sample)))

    def _transcribe(self, path: Path, language: str) -> str:
        segments, _ = self._model.transcribe(
            load_audio(path, RATE),
            language=language,
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
        )
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


class TransformersWhisperAdapter:
    """A Whisper in Hugging Face layout, decoded greedily by transformers, 30 s at a time, without time stamps."""

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

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        texts = [
            self._window(samples_L[start : start + WINDOW], benchmark.language)
            for samples_L in (load_audio(path, RATE) for path in _sounds(sample))
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
                do_sample=False,
                num_beams=1,
                max_new_tokens=self._model.config.max_target_positions // 2,
                return_timestamps=False,
            )
        return self._tokenizer.decode(ids_1L[0].tolist(), skip_special_tokens=True).strip()

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ConfigError(f"{self.name} knows no {token}")
        return number


class ChatAdapter:
    """A model behind an OpenAI-compatible chat endpoint that takes sound."""

    takes_instructions = True

    def __init__(self, endpoint: Endpoint, seed: int = 0, speaks: bool = False) -> None:
        self.name, self.speaks = endpoint.model, speaks
        self.fingerprint = hashed(f"{endpoint.model}@{endpoint.url}")
        self._endpoint, self._seed = endpoint, seed

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        asked = TRANSCRIBE if sample.instruction is None and not benchmark.speaks else sample.instruction
        content = [{"type": "text", "text": asked}] if asked else []
        content += [audio_part(wav_bytes(load_audio(path, RATE))) for path in sample.audios]
        sampling = whole_options(benchmark.sampling)
        options: dict[str, Any] = {"temperature": sampling.get("text_temperature", 0), "seed": self._seed}
        options |= {"max_tokens": sampling["max_new_tokens"]} if sampling.get("max_new_tokens", -1) > 0 else {}
        if benchmark.speaks:
            options |= {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
        reply = self._endpoint.chat([{"role": "user", "content": content}], **options)
        audio = load_audio(reply.audio, SPEECH_RATE) if reply.audio is not None else None
        return Output(reply.text, audio, SPEECH_RATE)


class TranscriptionAdapter:
    """A recogniser behind an OpenAI-compatible transcription endpoint."""

    takes_instructions = speaks = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.model
        self.fingerprint = hashed(f"{endpoint.model}@{endpoint.url}")
        self._endpoint = endpoint

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        wavs = [wav_bytes(load_audio(path, RATE)) for path in _sounds(sample)]
        return Output(" ".join(self._endpoint.transcribe(wav, benchmark.language).strip() for wav in wavs))


def _sounds(sample: Sample) -> tuple[Path, ...]:
    if not sample.audios:
        raise DataError(f"{sample.id}: there is no sound to transcribe")
    return sample.audios


def _check_whisper(folder: Path) -> None:
    missing = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / name).exists()]
    if missing:
        raise CheckpointError(f"{folder}: a Whisper folder needs {', '.join(missing)}")
