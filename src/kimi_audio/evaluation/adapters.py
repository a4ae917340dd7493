"""Models as things that answer samples, one short class for each way to reach a model.

    adapter = make_adapter("whisper:models/whisper-base")
    adapter.generate(sample, benchmark).text

A benchmark's `sampling` has the official names; endpoints get those that they know by their own names. `ACCEPTED` lists
what can be named. Whispers are in `whisper.py`; any other model is measured as a program, see `command.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.hub import resolve
from kimi_audio.checkpoint.speaking import load_vocoder
from kimi_audio.detokenizer.vocoder import log_mel
from kimi_audio.errors import CheckpointError, ConfigError, DataError
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.command import CommandAdapter, hashed, whole_options
from kimi_audio.evaluation.endpoint import TRANSCRIPTION, Endpoint, audio_part, wav_bytes
from kimi_audio.evaluation.evaluate import Adapter
from kimi_audio.evaluation.samples import Output, Sample
from kimi_audio.evaluation.store import fingerprint
from kimi_audio.evaluation.whisper import TransformersWhisperAdapter, WhisperAdapter
from kimi_audio.messages import Message

if TYPE_CHECKING:
    from kimi_audio import KimiAudio

ACCEPTED = """\
tiny                              the bundled model
FOLDER or OWNER/NAME              any other Kimi-Audio, here or on the hub
recordings                        the people who recorded the texts, where texts are read aloud
revoiced:FOLDER                   the same recordings, said again by a Kimi-Audio's detokenizer
vocoded:FOLDER                    the same recordings, through mels and the vocoder of this folder
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


def make_adapter(
    spec: str, *, seed: int = 0, timeout: float | None = None, prices: tuple[float, float] | None = None
) -> Adapter:
    """The model that a spec names, see `ACCEPTED`.

    Args:
        timeout: seconds that a program or an endpoint may take for an answer; None: as they have it.
        prices: of a million tokens of an endpoint, read and written.

    Raises:
        ConfigError: for a spec that names no model.
        CheckpointError: for a folder that holds no model that can be loaded.
    """
    kind, colon, rest = spec.partition(":")
    if not colon:
        return RecordingAdapter() if spec == "recordings" else KimiAudioAdapter(None if spec == "tiny" else spec, seed)
    if kind == "revoiced":
        return RevoicingAdapter(None if rest == "tiny" else rest, seed)
    if kind == "vocoded":
        return VocodingAdapter(Path(rest))
    if kind in ("whisper", "whisper-hf"):
        if not rest or not Path(rest).is_dir():
            raise ConfigError(f"model {spec!r}: there is no folder {rest!r}")
        return WhisperAdapter(Path(rest)) if kind == "whisper" else TransformersWhisperAdapter(Path(rest))
    limits = {} if timeout is None else {"timeout": timeout}
    if kind == "openai-transcribe":
        return TranscriptionAdapter(Endpoint.from_spec(rest, prices=prices, **limits))
    if kind in ("openai", "openai-speech"):
        return ChatAdapter(Endpoint.from_spec(rest, prices=prices, **limits), seed, speaks=kind == "openai-speech")
    if kind in ("command", "command-speech"):
        return CommandAdapter(rest, speaks=kind == "command-speech", **limits)
    raise ConfigError(f"model {spec!r}; accepted are\n{ACCEPTED}")


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
        self.model = KimiAudio.from_pretrained(folder, dtype="auto")
        self.speaks = self.model.speaks

    def recipe(self, benchmark: Benchmark) -> dict[str, Any]:
        model = self.model
        added: dict[str, Any] = {"sampling": asdict(replace(model.defaults, **whole_options(benchmark.sampling)))}
        added |= asdict(model.habits) | {"break_loops": True}
        return added | speech_settings(model) if benchmark.speaks else added

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        options = whole_options(benchmark.sampling)
        if sample.instruction is None and not benchmark.speaks:
            return Output(" ".join(self.model.transcribe(path, **options).text for path in sample.to_transcribe()))
        asked = [Message("user", "text", sample.instruction)] if sample.instruction else []
        messages = [*sample.history, *asked, *(Message("user", "audio", path) for path in sample.audios)]
        if benchmark.reads_aloud:
            sounds = self.model.say(sample.reference, seed=self._seed)
            return spoken(sample.reference, sounds, self.model.speech_rate)
        if not benchmark.speaks:
            return Output(self.model.generate(messages, seed=self._seed, break_loops=True, **options).text)
        return self._speak(messages, options)

    def _speak(self, messages: list[Message], options: dict[str, Any]) -> Output:
        started, first_sound = time.perf_counter(), None
        answer = self.model.stream(messages, "both", seed=self._seed, break_loops=True, **options)
        for piece in answer:
            if first_sound is None and isinstance(piece, np.ndarray):
                first_sound = time.perf_counter() - started
        reply = answer.reply
        return Output(reply.text, reply.audio, self.model.speech_rate, first_sound=first_sound)


def speech_settings(model: KimiAudio) -> dict[str, Any]:
    """How a model makes sound of codes."""
    return {"speech": model.parts.generation_config.get("speech", {})}


def spoken(text: str, sounds: Iterable[np.ndarray], rate: int) -> Output:
    """An answer from its sounds, as they are made."""
    started, first_sound, parts = time.perf_counter(), None, [np.zeros(0, np.float32)]
    for part in sounds:
        if len(part):
            first_sound = first_sound or time.perf_counter() - started
        parts.append(part)
    return Output(text, np.concatenate(parts), rate, first_sound=first_sound)


def recording_of(sample: Sample) -> str:
    """The path of somebody reading the text of a sample. Raises DataError if nobody does."""
    if not sample.fields.get("recording"):
        raise DataError(f"{sample.id}: there is no recording of somebody reading this")
    return sample.fields["recording"]


class RecordingAdapter:
    """The people who recorded a benchmark of texts read aloud: what a model is to be measured by."""

    name, fingerprint, takes_instructions, speaks = "recordings", "recordings", True, True

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        return Output(sample.reference, load_audio(recording_of(sample), SPEECH_RATE), SPEECH_RATE)


class RevoicingAdapter:
    """The same recordings through a model's semantic tokenizer and detokenizer: the best that its voice can be."""

    takes_instructions = speaks = True

    def __init__(self, name: str | None, seed: int = 0) -> None:
        model = KimiAudioAdapter(name, seed)
        self.name, self.fingerprint = f"revoiced by {model.name}", model.fingerprint
        self._model, self._seed = model.model, seed

    def recipe(self, benchmark: Benchmark) -> dict[str, Any]:
        return speech_settings(self._model)

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        sounds = self._model.revoice(recording_of(sample), seed=self._seed)
        return spoken(sample.reference, sounds, self._model.speech_rate)


class VocodingAdapter:
    """The same recordings as mels and then through a vocoder: the best that a flow can come to with it."""

    takes_instructions = speaks = True

    def __init__(self, folder: Path) -> None:
        self.name, self.fingerprint = f"vocoded by {folder.resolve().name}", fingerprint(folder)
        self._vocoder = load_vocoder(folder)

    @torch.inference_mode()
    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        config = self._vocoder.config
        samples_1L = torch.from_numpy(load_audio(recording_of(sample), config.sampling_rate))[None]
        made_1L = self._vocoder(log_mel(samples_1L, config))
        return Output(sample.reference, made_1L[0].numpy(), config.sampling_rate)


class ChatAdapter:
    """A model behind an OpenAI-compatible chat endpoint that takes sound."""

    takes_instructions = True

    def __init__(self, endpoint: Endpoint, seed: int = 0, speaks: bool = False) -> None:
        self.name, self.speaks = endpoint.model, speaks
        self.fingerprint = hashed(f"{'openai-speech' if speaks else 'openai'}:{endpoint.model}@{endpoint.url}")
        self.endpoint, self._seed = endpoint, seed

    def recipe(self, benchmark: Benchmark) -> dict[str, Any]:
        return {"instruction": _asked(benchmark.instruction, benchmark)} | self._options(benchmark)

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        asked = _asked(sample.instruction, benchmark)
        content = [{"type": "text", "text": asked}] if asked else []
        content += [audio_part(wav_bytes(load_audio(path, RATE))) for path in sample.audios]
        messages = [*map(_endpoint_message, sample.history), {"role": "user", "content": content}]
        reply = self.endpoint.chat(messages, **self._options(benchmark))
        audio = load_audio(reply.audio, SPEECH_RATE) if reply.audio is not None else None
        return Output(reply.text, audio, SPEECH_RATE)

    def _options(self, benchmark: Benchmark) -> dict[str, Any]:
        """The fields of a request besides the messages."""
        sampling = whole_options(benchmark.sampling)
        options: dict[str, Any] = {"temperature": sampling.get("text_temperature", 0), "seed": self._seed}
        options |= {"max_tokens": sampling["max_new_tokens"]} if sampling.get("max_new_tokens", -1) > 0 else {}
        if benchmark.speaks:
            options |= {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
        return options


class TranscriptionAdapter:
    """A recogniser behind an OpenAI-compatible transcription endpoint."""

    takes_instructions = speaks = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.model
        self.fingerprint = hashed(f"openai-transcribe:{endpoint.model}@{endpoint.url}")
        self.endpoint = endpoint

    def recipe(self, benchmark: Benchmark) -> dict[str, Any]:
        return dict(TRANSCRIPTION)

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        wavs = [wav_bytes(load_audio(path, RATE)) for path in sample.to_transcribe()]
        return Output(" ".join(self.endpoint.transcribe(wav, benchmark.language).strip() for wav in wavs))


def _asked(instruction: str | None, benchmark: Benchmark) -> str | None:
    """What a chat model is asked in writing: also for a transcript, if that is what a benchmark wants."""
    wants_transcript = instruction is None and benchmark.instruction_field is None and not benchmark.speaks
    return TRANSCRIBE if wants_transcript else instruction


def _endpoint_message(message: Message) -> dict[str, Any]:
    heard = message.type == "audio"
    content = [audio_part(wav_bytes(load_audio(message.content, RATE)))] if heard else message.content
    return {"role": message.role, "content": content}
