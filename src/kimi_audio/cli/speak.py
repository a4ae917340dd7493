"""`say`, `revoice` and `chat`: text to speech, speech to speech, and conversations in which both sides may speak."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_audio.cli import common, sound
from kimi_audio.cli.listen import Recordings
from kimi_audio.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kimi_audio.detokenizer.streaming import StreamConfig
    from kimi_audio.generation import Reply
    from kimi_audio.messages import Message
    from kimi_audio.model import KimiAudio


@dataclass(frozen=True)
class Speaking:
    """The options of a command that speaks."""

    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="WAV", help="Write the sound to this file.")
    ] = None
    play: Annotated[bool, typer.Option("--play", help="Play the sound; needs the extra `live`.")] = False
    seed: Annotated[int | None, typer.Option("--seed", help="Say it the same way each time.")] = None
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Solver steps: fewer are quicker, more are finer.")
    ] = None
    chunk: Annotated[
        int | None, typer.Option("--chunk", min=2, help="Codes of 80 ms that are made to sound at a time.")
    ] = None
    first_chunk: Annotated[
        int | None, typer.Option("--first-chunk", min=2, help="Codes of the first chunk: fewer are heard earlier.")
    ] = None
    look_ahead: Annotated[
        int | None,
        typer.Option("--look-ahead", min=0, help="Codes that a chunk sees of the next one; by itself, at most half."),
    ] = None

    @property
    def aloud(self) -> bool:
        """Whether the sound goes anywhere."""
        return self.output is not None or self.play

    def manner(self, model: "KimiAudio") -> "StreamConfig | None":
        """The model's way to speak with what the options change of it; None for a model that can't."""

        if model.detokenizer is None:
            return None
        config = model.detokenizer.config
        if self.steps is not None:
            config = config.with_steps(self.steps)
        chunk = self.chunk or config.chunk_codes
        first = self.first_chunk or config.first_chunk_codes
        look_ahead = self.look_ahead
        if look_ahead is None:
            is_cut_anew = self.chunk is not None or self.first_chunk is not None
            longest = min(chunk, first or chunk) // 2 if is_cut_anew else config.look_ahead_codes
            look_ahead = min(config.look_ahead_codes, longest)
        return replace(config, chunk_codes=chunk, first_chunk_codes=first, look_ahead_codes=look_ahead)


@common.command
def say(
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="What to say; - reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Say what is in this text file.")] = None,
    *,
    speaking: Speaking,
    loading: common.Loading,
) -> None:
    """Say a text of any length. Ctrl-C stops; what was said so far is kept."""
    words = _words(text, file)
    output = _destination(speaking)
    with _mouth(speaking) as mouth:
        speaker = loading.load()
        _utter(speaker.say(words, seed=speaking.seed, speech=speaking.manner(speaker)), speaker, mouth, output)


@common.command
def revoice(
    recording: Annotated[str, typer.Argument(metavar="AUDIO", help="What is said again; - reads standard input.")],
    *,
    speaking: Speaking,
    loading: common.Loading,
) -> None:
    """Say a recording again in the model's voice. Of the model, only the codes and what makes sound of them."""
    output, batch = _destination(speaking), Recordings()
    with _mouth(speaking) as mouth, batch.item():
        speaker, source = loading.load(), sys.stdin.buffer.read() if recording == "-" else recording
        _utter(speaker.revoice(source, seed=speaking.seed, speech=speaking.manner(speaker)), speaker, mouth, output)
    batch.end()


def _destination(speaking: Speaking) -> Path | None:
    """The file to write. Raises ConfigError where sound would go nowhere."""
    if not speaking.aloud:
        raise ConfigError("where should the sound go? Give -o FILE.wav, --play or both")
    return speaking.output


def _utter(sounds: Iterator[Any], speaker: "KimiAudio", mouth: "Mouth", output: Path | None) -> None:
    """Let sounds be heard as they are made, and tell how quick that was."""
    started, first = time.perf_counter(), None
    for samples in sounds:
        if len(samples):
            first = first or time.perf_counter() - started
            mouth.write(samples, speaker.speech_rate)
    elapsed = time.perf_counter() - started
    mouth.must_have_spoken()
    common.tell(
        f"{mouth.seconds:.1f} s of speech in {elapsed:.1f} s ({elapsed / mouth.seconds:.2f} × real time), "
        f"the first after {first:.2f} s" + (f"; wrote {output}" if output else "")
    )


@common.command
def chat(
    question: Annotated[str | None, typer.Argument(metavar="[AUDIO]", help="A spoken question.")] = None,
    *,
    speaking: Speaking,
    loading: common.Loading,
) -> None:
    """Answer a spoken question, in writing and, with -o or --play, aloud; without one, hold a conversation.

    In a conversation each line is typed text or the path of a sound; with a microphone (extra `live`) an empty line
    listens until you pause. With -o, the answers follow one another in the file. Ctrl-D ends it.
    """
    if question is not None and not os.path.isfile(question):
        raise DataError(f"{question}: no such file; a question is a sound file")
    with _mouth(speaking) as mouth:
        partner = loading.load(speaks=speaking.aloud)
        if speaking.aloud and not partner.speaks:
            raise ConfigError("this model can't speak; leave out -o and --play for its text")
        _converse(partner, _turns() if question is None else [_message("audio", question)], mouth, speaking)


def _converse(partner: "KimiAudio", turns: "Iterable[Message]", mouth: "Mouth", speaking: Speaking) -> None:
    """Answer turn by turn. A mistake in one is told; the conversation goes on without it, and code 2 comes last."""
    batch, history, has_forgotten = Recordings(), [], False
    output_type = "both" if speaking.aloud else "text"
    for turn in turns:
        with batch.item():
            if turn.type == "audio":
                turn = replace(turn, content=partner.listen_to_request(turn.content))
                if turn.content.words:
                    common.tell(f"understood: {turn.content.words}")
            messages = partner.recent([*history, turn], output_type)
            if len(messages) <= len(history) and not has_forgotten:
                common.tell("the conversation has become long; from now on its oldest turns are forgotten")
                has_forgotten = True
            history = [*messages, _answer(partner, messages, mouth, speaking).message]
            mouth.wait()
    if speaking.aloud and history:
        mouth.must_have_spoken()
    batch.end()


def _answer(partner: "KimiAudio", messages: "list[Message]", mouth: "Mouth", speaking: Speaking) -> "Reply":
    """Print and say the answer as it is made."""
    output_type = "both" if speaking.aloud else "text"
    speech = speaking.manner(partner)
    stream = partner.stream(messages, output_type, seed=speaking.seed, break_loops=True, speech=speech)
    with closing(stream) as answer:
        for piece in answer:
            if isinstance(piece, str):
                print(piece, end="", flush=True)
            else:
                mouth.write(piece, partner.speech_rate)
    print(flush=True)
    return answer.reply


def _turns() -> "Iterator[Message]":
    """What the user says, types or names, until the end of the input."""
    listens = sys.stdin.isatty() and sound.has_microphone()
    if sys.stdin.isatty():
        hint = "Enter alone listens; " if listens else ""
        common.tell(f"type something or name a sound file; {hint}Ctrl-D ends the conversation")
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = _as_text("standard input", sys.stdin.readline)
        if not line:
            return
        words = line.strip()
        if words:
            yield _message("audio" if os.path.isfile(words) else "text", words)
        elif listens:
            heard = sound.hear()
            if heard is None:
                common.tell("nobody spoke")
            else:
                yield _message("audio", heard)


def _message(kind: Any, content: Any) -> "Message":
    from kimi_audio.messages import Message

    return Message("user", kind, content)


def _words(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise ConfigError("give either the text to say, - for standard input, or --file")
    if file is not None:
        return _as_text(str(file), lambda: file.read_text(encoding="utf-8"))
    if text == "-":
        return _as_text("standard input", sys.stdin.read)
    assert text is not None
    return _as_text("the text", lambda: text)


def _as_text(name: str, read: Callable[[], str]) -> str:
    """What is read; raises DataError when it is no text."""
    try:
        words = read()
        words.encode()  # bytes of a terminal that are no text may be lone surrogates
    except UnicodeError:
        raise DataError(f"{name}: is not text in UTF-8") from None
    return words


class OutputError(Exception):
    """Sound can't go where it should: unlike a mistake in one turn of a conversation, this ends the command."""


class Mouth:
    """File and loudspeaker of a command, opened with the first sound: a failure before it overwrites nothing."""

    def __init__(self, output: Path | None, play: bool) -> None:
        self._output, self._play = output, play
        self._file: sound.WavFile | None = None
        self._loudspeaker: sound.Loudspeaker | None = None
        self._opened = ExitStack()
        self._rate, self._samples = 0, 0

    def write(self, samples: Any, rate: int) -> None:
        with self._outcome():
            if not self._rate:
                self._open(rate)
            if self._file is not None:
                self._file.write(samples)
            if self._loudspeaker is not None:
                self._loudspeaker.write(samples)
        self._samples += len(samples)

    def _open(self, rate: int) -> None:
        if self._play:  # first: where it can't be opened, the file stays as it is
            self._loudspeaker = sound.Loudspeaker(rate)
            self._opened.callback(self._loudspeaker.close)
        if self._output is not None:
            self._file = sound.WavFile(self._output, rate)
            self._opened.callback(self._file.close)
        self._rate = rate

    def wait(self) -> None:
        """Return when everything has been heard."""
        if self._loudspeaker is not None:
            self._loudspeaker.wait()

    def hush(self) -> None:
        """Play no more."""
        if self._loudspeaker is not None:
            self._loudspeaker.hush()

    def close(self) -> None:
        with self._outcome():
            self._opened.close()

    @contextmanager
    def _outcome(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            raise OutputError(str(error)) from error
        except OSError as error:
            raise OutputError(f"{error.filename or self._output}: {error.strerror or error}") from error

    def must_have_spoken(self) -> None:
        """Raises DataError when there was no sound."""
        if not self._samples:
            raise DataError("nothing was spoken" + (f"; {self._output} was not written" if self._output else ""))

    @property
    def seconds(self) -> float:
        """Sound so far."""
        return self._samples / self._rate if self._rate else 0.0


@contextmanager
def _mouth(speaking: Speaking) -> Iterator[Mouth]:
    """A mouth that is closed whatever happens; Ctrl-C and full disks leave what was said before them, and say so.

    What can't be played or written is told here, before a model is loaded.
    """
    output, is_new = speaking.output, False
    if output is not None and output.suffix.lower() != ".wav":
        raise ConfigError(f"{output}: sound is written as .wav; give the file that ending")
    if speaking.play:
        sound.require_loudspeaker()
    if output is not None:
        is_new = not output.exists()
        with output.open("ab"):
            pass
    mouth = Mouth(output, speaking.play)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with closing(mouth):
            try:
                yield mouth
            except KeyboardInterrupt:
                mouth.hush()
                raise
    except KeyboardInterrupt:
        kept = f"; {mouth.seconds:.1f} s of speech are in {output}" if output and mouth.seconds else ""
        common.tell(f"interrupted{kept}")
        raise typer.Exit(common.INTERRUPTED) from None
    except OutputError as error:
        kept = f"; {mouth.seconds:.1f} s of speech are in {output}" if output and mouth.seconds else ""
        raise DataError(f"{error}{kept}") from error
    finally:
        signal.signal(signal.SIGINT, previous)
        if output is not None and is_new and not mouth.seconds:
            output.unlink(missing_ok=True)  # nothing was said
