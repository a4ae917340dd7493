"""KimiAudio: the one object a user holds. Sound and text in, text and sound out.

    model = KimiAudio.from_pretrained()                     # the bundled model; or a folder, or a hub id
    model.transcribe("lecture.mp3").text
    model.ask("What do you hear?", "dog.wav").text
    reply = model.generate(messages, output_type="text")    # official message format and sampling options
    for piece in model.stream(messages, "both"): ...        # str and samples (L,), as they are made
    for samples in model.say("Good morning."): ...          # float32, model.speech_rate

The model folder's ``generation_config.json`` may set the defaults of the sampling options, by their names, and
the fields of `habits.Habits`: how this model was trained to be used.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from kimi_audio.audio.decode import load_audio, stream_audio
from kimi_audio.checkpoint.layout import ModelParts, load_parts, save_parts
from kimi_audio.detokenizer.streaming import Detokenizer, Noise, StreamConfig
from kimi_audio.errors import ConfigError
from kimi_audio.generation import AnswerStream, Reply, SamplingParams, budget, decode
from kimi_audio.generation.aloud import Reader
from kimi_audio.generation.decode import POSITIONS
from kimi_audio.generation.joint import JointSearch, PhonemeEars
from kimi_audio.generation.speech_text import spoken_pieces
from kimi_audio.generation.transcript import Transcriber, Transcript, TranscriptSegment, transcripts
from kimi_audio.habits import Habits, known_fields
from kimi_audio.messages import Conversation, Message, messages_from
from kimi_audio.prompt import Heard, OutputType, Prompt, build_prompt
from kimi_audio.tokenizer.acoustic import num_tokens
from kimi_audio.vocab import Vocabulary

SAMPLE_RATE = 16_000
CODES_PER_TEXT_ID, CODES_PER_PHONEME = 8, 2
"""Reading aloud stops at 8 codes (0.64 s) per text id, or 2 per phoneme, and a little more: nobody speaks slower."""

CODES_A_PUSH = 25
"""Codes that are handed to the detokenizer at a time when all of them are there."""

ANSWER_POSITIONS = 500
"""What a long conversation leaves for an answer: 40 s of speech."""


class KimiAudio:
    """A model and its two encoders, its text tokenizer and its defaults.

    Args:
        parts: what a model folder holds; of ``generation_config.json`` the fields that are not ours are ignored.
    """

    def __init__(self, parts: ModelParts):
        self.parts = parts
        self.llm, self.tokenizer = parts.llm, parts.tokenizer
        self.acoustic, self.semantic = parts.acoustic, parts.semantic
        self.detokenizer = parts.detokenizer
        self.vocab = Vocabulary.from_config(parts.llm.config.to_dict())
        self.defaults = known_fields(SamplingParams, parts.generation_config)
        self.habits = known_fields(Habits, parts.generation_config)
        self.phoneme_ears = None
        if parts.acoustic is not None and parts.phonemes is not None and parts.lexicon is not None:
            search = JointSearch(self.habits.beams, self.habits.language_weight)
            self.phoneme_ears = PhonemeEars(parts.phonemes, parts.lexicon, self.tokenizer.encode, search)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        dtype: str | torch.dtype = "float32",
        device: str | torch.device | None = None,
        load_detokenizer: bool = True,
    ) -> "KimiAudio":
        """Load a model.

        Args:
            name: a folder in the official layout or a hub id, fetched where missing; None is the bundled model.
            dtype: `float32`, `bfloat16` or `float16`; `int8` or `int4`: quantised weights; `auto` (see `load_parts`).
            device: where to compute; None takes CUDA or MPS where there is one, else the CPU.
            load_detokenizer: False leaves out what only speech needs.

        Raises:
            CheckpointError: when files are missing, damaged or contradict each other.
            ConfigError: when `dtype` is not one of those.
        """
        device = device or _best_device()
        return cls(load_parts(name, dtype=dtype, device=device, with_detokenizer=load_detokenizer))

    def save(self, folder: str | Path) -> None:
        """Write the model in the official layout; `from_pretrained` reads it back identically."""
        save_parts(folder, self.parts)

    @property
    def speaks(self) -> bool:
        """Whether the model answers aloud: that takes an audio branch and a detokenizer."""
        return self.detokenizer is not None and self.llm.config.kimia_mimo_layers > 0

    @property
    def speech_rate(self) -> int:
        """Samples a second of what the model says. Raises ConfigError for a model without a detokenizer."""
        return self._mouth().sample_rate

    def listen(self, source: Any) -> Heard:
        """What the model hears of a sound: a path, bytes, a file object, or an array of 16 kHz samples.

        What it has said or heard itself (`Heard`) is taken as it is.
        """
        if isinstance(source, Heard):
            return source
        rate = SAMPLE_RATE if isinstance(source, np.ndarray) else None
        samples = load_audio(source, SAMPLE_RATE, rate=rate)
        features = self.acoustic(samples) if self.acoustic is not None else None
        return Heard(self.semantic.encode([samples])[0].tolist(), features)

    def listen_to_request(self, source: Any) -> Heard:
        """As `listen`, and with its words for a model that writes requests down."""
        heard = self.listen(source)
        if not self.habits.write_requests_down or heard.words is not None:
            return heard
        words = ""
        if len(heard.codes) <= num_tokens(int(self.habits.max_segment_seconds * SAMPLE_RATE)):
            asked = Message("user", "text", self.habits.transcribe_instruction)
            prompt = self.prompt([asked, Message("user", "audio", heard)])
            ids = next(transcripts(self.llm, self.vocab, [prompt], self.defaults, self.phoneme_ears))
            words = self.tokenizer.decode(ids).strip()
        return replace(heard, words=words)

    def prompt(self, messages: Conversation, output_type: OutputType = "text") -> Prompt:
        """The streams that the language model reads for a conversation.

        Where the model writes requests down, a user's turn of nothing but sound is read as its words, if it has any.
        """
        return build_prompt(
            self._written_down(messages_from(messages)),
            self.vocab,
            self.tokenizer.encode,
            self.listen,
            output_type=output_type,
            training=self.habits.history_text_eos,
            learn_speech=self.habits.history_text_eos,
        )

    def _written_down(self, messages: Sequence[Message]) -> list[Message]:
        if not self.habits.write_requests_down:
            return [*messages]
        written: list[Message] = []
        for role, turn in groupby(messages, lambda message: message.role):
            turn = list(turn)
            if role == "user" and all(message.type == "audio" for message in turn):
                turn = [replace(message, content=self.listen_to_request(message.content)) for message in turn]
                turn = [replace(m, type="text", content=m.content.words) if m.content.words else m for m in turn]
            written += turn
        return written

    def recent(self, messages: Conversation, output_type: OutputType = "text") -> list[Message]:
        """The newest turns of a conversation that leave room for the answer, beginning with a user's.

        The last message is always among them. Sounds are heard for this; what `listen` returns is heard already.
        """
        kept = messages_from(messages)
        while len(kept) > 1 and len(self.prompt(kept, output_type)) + ANSWER_POSITIONS > POSITIONS[output_type]:
            following = (at for at in range(1, len(kept)) if kept[at].role == "user")
            kept = kept[next(following, -1) :]
        return kept

    def generate(
        self,
        messages: Conversation,
        output_type: OutputType = "text",
        *,
        seed: int | None = None,
        break_loops: bool = False,
        speech: StreamConfig | None = None,
        **options: Any,
    ) -> Reply:
        """Answer a conversation.

        Args:
            messages: dicts ``{"role", "message_type", "content"}`` or `Message` objects.
            output_type: ``text``, or ``both`` for a spoken answer beside the written one.
            seed: makes sampled answers repeatable; None draws from torch's global generator.
            break_loops: stop phrases that are said over and over, and say them once.
            speech: how speech is cut up and made, in place of the model's defaults.
            **options: fields of `SamplingParams`, in place of the model's defaults.

        Raises:
            KimiAudioError: for messages, sounds or options that are not accepted.
        """
        answer = self._answer(self.prompt(messages, output_type), output_type, seed, speech, options, break_loops)
        for _ in answer:
            pass
        return answer.reply

    def stream(
        self,
        messages: Conversation,
        output_type: OutputType = "text",
        *,
        seed: int | None = None,
        break_loops: bool = False,
        speech: StreamConfig | None = None,
        **options: Any,
    ) -> AnswerStream:
        """Answer a conversation piece by piece: complete characters, and sound as soon as it is certain.

        At the end, what `generate` returns is the `reply` of what this returns. The pieces, joined, are the same, but
        for the repetitions by which a loop was found out.
        """
        return self._answer(self.prompt(messages, output_type), output_type, seed, speech, options, break_loops)

    def say(
        self, text: str, *, seed: int | None = None, speech: StreamConfig | None = None, **options: Any
    ) -> Generator[np.ndarray, None, None]:
        """Read a text of any length aloud: samples (L,) float32 at `speech_rate`, as they are made.

        It is said in pieces of a sentence or a few (`spoken_pieces`). Options as of `generate`.

        Raises:
            DataError: when nothing in the text can be pronounced.
            ConfigError: when the model can't speak.
        """
        for piece in self._pieces(text):
            with closing(self._answer(self._reading(piece), "both", seed, speech, options, reads=piece)) as answer:
                yield from (sound for sound in answer if isinstance(sound, np.ndarray))

    def revoice(
        self, source: Any, *, seed: int | None = None, speech: StreamConfig | None = None
    ) -> Generator[np.ndarray, None, None]:
        """Say a recording again in the model's voice: its semantic codes to samples (L,), as they are made.

        Only the tokenizer and the detokenizer are at work. `source` and options as of `listen` and `generate`.

        Raises:
            AudioError: when the source holds no readable sound.
            ConfigError: when the model has no detokenizer.
        """
        voice = self._mouth().stream(_noise(seed), speech)
        samples = load_audio(source, SAMPLE_RATE, rate=SAMPLE_RATE if isinstance(source, np.ndarray) else None)
        for codes in self.semantic.encode([samples])[0].split(CODES_A_PUSH):
            yield voice.push(codes.tolist()).cpu().numpy()
        yield voice.flush().cpu().numpy()

    def ask(self, instruction: str, *sources: Any, **options: Any) -> Reply:
        """Answer a written instruction about any number of sounds."""
        messages = [Message("user", "text", instruction), *(Message("user", "audio", source) for source in sources)]
        return self.generate(messages, break_loops=True, **options)

    def transcribe(
        self, source: Any, *, rate: int | None = None, report: Callable[[float], None] | None = None, **options: Any
    ) -> Transcript:
        """Write down what is said in a recording of any length; see `transcribe_segments`.

        `report` is called with the seconds of sound read so far, after every block of some seconds.
        """
        return self._transcriber(**options).whole(_blocks(source, rate), report)

    def transcribe_segments(
        self, source: Any, *, rate: int | None = None, **options: Any
    ) -> Iterator[TranscriptSegment]:
        """Write down what is said, passage by passage as they are done, in order, in bounded memory.

        The recording is cut at pauses; passages without speech are left out. Loops are broken, and no passage
        gets more text than can be said in its time.

        Args:
            source: a path, bytes, a file object or an array.
            rate: sample rate of an array (default 16000).
            **options: `instruction` (default: the model's), `batch_size` (passages decoded together, default 8)
                and fields of `SamplingParams`, which a model that reads phonemes needs for other instructions only.

        Raises:
            AudioError: when the source holds no readable sound.
        """
        yield from self._transcriber(**options).segments(_blocks(source, rate))

    def _transcriber(self, instruction: str | None = None, batch_size: int = 8, **options: Any) -> Transcriber:
        own = self.habits.transcribe_instruction
        asked = Message("user", "text", instruction or own)
        return Transcriber(
            self.llm,
            self.vocab,
            self.tokenizer.decode,
            lambda samples: self.prompt([asked, Message("user", "audio", samples)]),
            self._params(options),
            # Another instruction may want something else than the words that are heard.
            self.phoneme_ears if asked.content == own else None,
            self.habits.max_segment_seconds,
            batch_size,
        )

    def _answer(
        self,
        prompt: Prompt,
        output_type: OutputType,
        seed: int | None,
        speech: StreamConfig | None,
        options: Mapping[str, Any],
        break_loops: bool = False,
        reads: str | None = None,
    ) -> AnswerStream:
        """The answer to a prompt; `reads` is a text to be said instead of an answer."""
        if output_type not in get_args(OutputType):
            raise ConfigError(f"output_type is {output_type!r}; it must be 'text' or 'both'")
        params = self._params(options)
        limit = budget(len(prompt), output_type, params.max_new_tokens)
        voice = None
        if output_type == "both":
            voice = self._mouth().stream(_noise(seed), speech)
        generator = None if seed is None else torch.Generator(self.llm.model.norm.weight.device).manual_seed(seed)
        if reads is not None:
            steps = self._reader().say(reads, limit, params, generator)
        elif output_type == "both" and self.parts.lexicon is not None:
            steps = self._reader().write_then_say(prompt, limit, params, generator, break_loops)
        else:
            steps = decode(self.llm, self.vocab, [prompt], [limit], params, output_type=output_type,
                           generator=generator, break_loops=break_loops)  # fmt: skip
        return AnswerStream(steps, self.vocab, self.tokenizer, voice, break_loops)

    def _reading(self, text: str) -> Prompt:
        """What comes before a text that is read aloud: the request, or nothing where phonemes are all it takes."""
        if self.parts.lexicon is not None:
            return build_prompt([], self.vocab, self.tokenizer.encode, self.listen)
        return self.prompt([Message("user", "text", f"{self.habits.say_instruction} {text}")], "both")

    def _pieces(self, text: str) -> Iterator[str]:
        return spoken_pieces(text, self.habits.max_say_characters, self.habits.join_sentences)

    def _reader(self) -> Reader:
        each = CODES_PER_TEXT_ID if self.parts.lexicon is None else CODES_PER_PHONEME
        decode_text, encode = self.tokenizer.decode, self.parts.encode_spoken
        return Reader(self.llm, self.vocab, encode, decode_text, self._reading, self._pieces, each)

    def _mouth(self) -> Detokenizer:
        if self.detokenizer is None:
            raise ConfigError("this model has no detokenizer and can't speak; ask for output_type 'text'")
        return self.detokenizer

    def _params(self, options: Mapping[str, Any]) -> SamplingParams:
        accepted = [f.name for f in fields(SamplingParams)]
        if unknown := [name for name in options if name not in accepted]:
            raise ConfigError(f"{unknown[0]!r} is no option; accepted are {', '.join(accepted)}")
        return replace(self.defaults, **options)


def _noise(seed: int | None) -> Noise:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return lambda frames, bins: torch.randn(frames, bins, generator=generator)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _blocks(source: Any, rate: int | None) -> Iterator[np.ndarray]:
    if rate is None and isinstance(source, np.ndarray):
        rate = SAMPLE_RATE
    return stream_audio(source, SAMPLE_RATE, rate=rate)
