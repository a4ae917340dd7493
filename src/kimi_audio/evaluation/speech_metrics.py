"""Scores of spoken answers, which nobody publishes on the same footing (report §6): right words, right voice, pace.

    tools = SpeechTools(whisper=Path("whisper-base"), voice=[Path("her.wav")])
    SPEECH_METRICS["speech-wer"](tools).score(sample, prediction)

    speech-wer          errors of an independent recogniser's transcript against the text that should be said
    speech-agreement    the same against what the model wrote beside its speech
    speech-mentions     whether it mentions one of the reference's regular expressions, as that recogniser hears it
    speaker-similarity  cosine to the mean voice of reference recordings (`speaker.py`)
    mos                 predicted quality, 1-5 (`mos.py`)
    speaking-rate       words a second, from the first to the last voiced moment
    pauses              seconds of pause in a minute of speech
    first-sound         seconds until sound began; until the end of the work for a model that doesn't stream
    rtf                 seconds of work for a second of speech

A phrase that the recogniser hears in a loop, which Whisper does on short sounds, is taken as heard once.
An answer without speech has no word right, no likeness, and the lowest quality. For pace and time there is nothing to
measure, which is a DataError: such an answer is in no figure, but among the failures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from kimi_audio.audio.blocks import Samples
from kimi_audio.audio.decode import load_audio
from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation.mos import MosPredictor
from kimi_audio.evaluation.normalise import normaliser
from kimi_audio.evaluation.samples import ItemScore, Metric, Prediction, Sample
from kimi_audio.evaluation.scoring import mentions_rule
from kimi_audio.evaluation.speaker import SpeakerEncoder
from kimi_audio.evaluation.speech import VOICE_RATE, Pauses, find_pauses, leading_silence
from kimi_audio.evaluation.whisper import FasterWhisper
from kimi_audio.evaluation.word_errors import align
from kimi_audio.generation.loops import collapse_loops

NO_SPEECH = "no speech to measure"
NUMBER = re.compile(r"\d{2,}")


def spoken(prediction: Prediction) -> Samples | None:
    """The speech of an answer at 16 kHz, None if there is not a sample of it."""
    if prediction.audio is None:
        return None
    if not prediction.audio.is_file():
        raise DataError(f"{prediction.audio}: the spoken answer is not there any more; ask the model again")
    return load_audio(prediction.audio) if soundfile.info(prediction.audio).frames else None


def _speech(prediction: Prediction) -> Samples:
    """As `spoken`, where speech is all that counts."""
    if (speech_L := spoken(prediction)) is None:
        raise DataError(NO_SPEECH)
    return speech_L


def _voiced(prediction: Prediction) -> Pauses:
    pauses = find_pauses(_speech(prediction), VOICE_RATE)
    if not pauses.span:
        raise DataError(NO_SPEECH)
    return pauses


class Recogniser(Protocol):
    """Whatever writes down speech, other than the model under test."""

    def transcribe(self, path: Path) -> str: ...


class WhisperRecogniser:
    """A Whisper folder; a file is transcribed once."""

    def __init__(self, folder: Path, language: str = "en") -> None:
        self._whisper, self._language = FasterWhisper(folder, device="cpu"), language
        self._known: dict[tuple[Path, int], str] = {}

    def transcribe(self, path: Path) -> str:
        key = path.resolve(), path.stat().st_mtime_ns
        if key not in self._known:
            self._known[key] = self._whisper.transcribe(path, self._language)
        return self._known[key]


@dataclass
class SpeechTools:
    """What the metrics measure with; each tool is made when the first metric asks for it.

    Attributes:
        whisper: folder of the recogniser.
        voice: recordings of the voice that answers should have, where the samples don't name their own.
        language: what the recogniser listens for.
        normaliser: how transcript and text are made comparable, by its name in `normalise.py`.
    """

    whisper: Path | None = None
    voice: Sequence[Path] = ()
    language: str = "en"
    normaliser: str = "whisper-english"

    @cached_property
    def recogniser(self) -> Recogniser:
        if self.whisper is None:
            raise ConfigError("measuring what speech says needs a recogniser; give the folder of a Whisper model")
        return WhisperRecogniser(self.whisper, self.language)

    @cached_property
    def speaker_encoder(self) -> SpeakerEncoder:
        return SpeakerEncoder()

    @cached_property
    def mos_predictor(self) -> MosPredictor:
        return MosPredictor()


def _transcript(recogniser: Recogniser, prediction: Prediction) -> str:
    if prediction.audio is None or spoken(prediction) is None:
        return ""
    return " ".join(collapse_loops(recogniser.transcribe(prediction.audio).split()))


class SpokenWordErrors:
    """Word errors of the transcript of an answer against `sample.reference`, or against what the model wrote.

    What it wrote is compared figure by figure: "one, two, three" is the number 123 to Whisper's normaliser, where the
    recogniser's "1, 2, 3" are three.
    """

    unit, lower_is_better = "%", True

    def __init__(self, name: str, tools: SpeechTools, against_written: bool) -> None:
        self.name = name
        self._recogniser, self._comparable = tools.recogniser, normaliser(tools.normaliser)
        self._against_written = against_written

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        heard = self._comparable(_transcript(self._recogniser, prediction))
        right = self._comparable(prediction.text if self._against_written else sample.reference)
        if self._against_written:
            right, heard = (NUMBER.sub(lambda number: " ".join(number[0]), text) for text in (right, heard))
        counts, pieces = align(right, heard)
        failed = int(not right and prediction.error is not None)  # one error, though there is no word to get wrong
        detail = {"reference": right, "hypothesis": heard, "alignment": pieces}
        return ItemScore(sample.id, max(counts.errors, failed), max(counts.words, failed), detail)


class SpeakerSimilarity:
    """Cosine between the voice of an answer and that of `sample.fields["voice"]` (files), or of `tools.voice`."""

    name, unit, lower_is_better = "speaker-similarity", "", False

    def __init__(self, tools: SpeechTools) -> None:
        self._encoder, self._voice = tools.speaker_encoder, tuple(tools.voice)
        self._known: dict[tuple[Path, ...], np.ndarray] = {}

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        voice_E = self._reference(sample)
        speech_L = spoken(prediction)
        found_E = None if speech_L is None else self._encoder.embed(speech_L)
        if found_E is None:
            return ItemScore(sample.id, 0.0, detail={"reason": NO_SPEECH})
        return ItemScore(sample.id, float(found_E @ voice_E))

    def _reference(self, sample: Sample) -> np.ndarray:
        named = sample.fields.get("voice")
        files = tuple(map(Path, [named] if isinstance(named, str) else named)) if named else self._voice
        if missing := [path for path in files if not path.is_file()]:
            raise DataError(f"{sample.id}: the recording of the voice {missing[0]} does not exist")
        if files not in self._known:
            self._known[files] = self._encoder.voice(files)
        return self._known[files]


class PredictedMos:
    """Overall quality by DNSMOS."""

    name, unit, lower_is_better = "mos", "1-5", False

    def __init__(self, tools: SpeechTools) -> None:
        self._predictor = tools.mos_predictor

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        speech_L = spoken(prediction)
        if speech_L is None:
            return ItemScore(sample.id, 1.0, detail={"reason": NO_SPEECH})
        mos = self._predictor(speech_L)
        return ItemScore(sample.id, mos.overall, detail={"signal": mos.signal, "background": mos.background})


class SpokenMention:
    """The rule `mentions` on what a recogniser hears."""

    name, unit, lower_is_better = "speech-mentions", "%", False

    def __init__(self, tools: SpeechTools) -> None:
        self._recogniser = tools.recogniser

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        heard = _transcript(self._recogniser, prediction)
        right, of, detail = mentions_rule(sample, heard)
        return ItemScore(sample.id, right, of, detail | {"hypothesis": heard})


class SpeakingRate:
    """Words heard over the seconds between the first and the last voiced moment."""

    name, unit, lower_is_better = "speaking-rate", "", False

    def __init__(self, tools: SpeechTools) -> None:
        self._recogniser = tools.recogniser

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        span = _voiced(prediction).span
        heard = _transcript(self._recogniser, prediction)
        words = sum(any(map(str.isalnum, word)) for word in heard.split())
        return ItemScore(sample.id, words, span, {"hypothesis": heard})


class PauseTime:
    """Seconds of pause in a minute from the first to the last voiced moment."""

    name, unit, lower_is_better = "pauses", "s", True

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        pauses = _voiced(prediction)
        detail = {"longest": pauses.longest, "count": pauses.count}
        return ItemScore(sample.id, pauses.total, pauses.span / 60, detail)


class FirstSound:
    """Seconds until sound began; `detail` has the silence that it began with."""

    name, unit, lower_is_better = "first-sound", "s", True

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        silence = leading_silence(_speech(prediction), VOICE_RATE)
        waited = prediction.took if prediction.first_sound is None else prediction.first_sound
        return ItemScore(sample.id, waited, detail={"silence": silence})


class RealTimeFactor:
    """Seconds of work for a second of speech."""

    name, unit, lower_is_better = "rtf", "", True

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        return ItemScore(sample.id, prediction.took, len(_speech(prediction)) / VOICE_RATE)


SPEECH_METRICS: dict[str, Callable[[SpeechTools], Metric]] = {
    "speech-wer": lambda tools: SpokenWordErrors("speech-wer", tools, against_written=False),
    "speech-agreement": lambda tools: SpokenWordErrors("speech-agreement", tools, against_written=True),
    "speech-mentions": SpokenMention,
    "speaker-similarity": SpeakerSimilarity,
    "mos": PredictedMos,
    "speaking-rate": SpeakingRate,
    "pauses": lambda tools: PauseTime(),
    "first-sound": lambda tools: FirstSound(),
    "rtf": lambda tools: RealTimeFactor(),
}
