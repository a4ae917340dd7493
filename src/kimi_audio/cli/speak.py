"""`say`, `revoice` and `chat`: text to speech, speech to speech, and conversations in which both sides may speak."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_audio.cli import common, sound
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

    def manner(self, model: "KimiAudio") -> "StreamConfig | None":
        """The model's way to speak with what the options change of it; None for a model that can't."""
        from kimi_audio.detokenizer.flow import euler

        if model.detokenizer is None:
            return None
        config = model.detokenizer.config
        if self.steps:
            config = replace(config, schedule=euler(self.steps))
        if self.chunk:
            config = replace(config, chunk_codes=self.chunk, first_chunk_codes=None,
                             look_ahead_codes=min(config.look_ahead_codes, self.chunk // 2))  # fmt: skip
        return config


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
    output = _destination(speaking)
    with _mouth(speaking) as mouth:
        speaker, source = loading.load(), sys.stdin.buffer.read() if recording == "-" else recording
        _utter(speaker.revoice(source, seed=speaking.seed, speech=speaking.manner(speaker)), speaker, mouth, output)


def _destination(speaking: Speaking) -> Path | None:
    """The file to write. Raises ConfigError where sound would go nowhere."""
    if speaking.output is None and not speaking.play:
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
    common.tell(
        f"{mouth.seconds:.1f} s of speech in {elapsed:.1f} s ({elapsed / max(mouth.seconds, 1e-9):.2f} × real time), "
        f"the first after {first or elapsed:.2f} s" + (f"; wrote {output}" if output else "")
    )


@common.command
def chat(
    question: Annotated[str | None, typer.Argument(metavar="[AUDIO]", help="A spoken question.")] = None,
    *,
    speaking: Speaking,
    loading: common.Loading,
) -> None:
    """Answer a spoken question, in writing and aloud; without one, hold a conversation at the terminal.

    In a conversation each line is typed text or the path of a sound; with a microphone (extra `live`) an empty line
    listens until you pause. With -o, the answers follow one another in the file. Ctrl-D ends it.
    """
    with _mouth(speaking) as mouth:
        if question is not None and not Path(question).is_file():
            raise DataError(f"{question}: no such file; a question is a sound file")
        partner = loading.load()
        if not partner.speaks and (speaking.output or speaking.play):
            raise ConfigError("this model can't speak; leave out -o and --play for its text")
        if question is not None:
            _answer(partner, [_message("audio", question)], mouth, speaking)
            return
        history: list[Message] = []
        for turn in _turns():
            with common.Batch().item():
                reply = _answer(partner, [*history, turn], mouth, speaking)
                history += [turn, reply.message]


def _answer(partner: "KimiAudio", messages: "list[Message]", mouth: "Mouth", speaking: Speaking) -> "Reply":
    """Print and say the answer as it is made."""
    output_type = "both" if partner.speaks else "text"
    speech = speaking.manner(partner)
    with closing(partner.stream(messages, output_type, seed=speaking.seed, speech=speech)) as answer:
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
        line = sys.stdin.readline()
        if not line:
            return
        words = line.strip()
        if words:
            yield _message("audio" if Path(words).is_file() else "text", words)
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
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{file}: is not a text file in UTF-8") from None
    assert text is not None
    return sys.stdin.read() if text == "-" else text


class Mouth:
    """File and loudspeaker of a command, opened with the first sound: a failure before it overwrites nothing."""

    def __init__(self, output: Path | None, play: bool) -> None:
        self._output, self._play = output, play
        self._sinks: sound.Sinks | None = None
        self._rate, self._samples = 1, 0

    def write(self, samples: Any, rate: int) -> None:
        if self._sinks is None:
            output, self._rate = self._output, rate
            self._sinks = sound.Sinks(
                (lambda: sound.WavFile(output, rate)) if output else None,
                (lambda: sound.Loudspeaker(rate)) if self._play else None,
            )
        self._sinks.write(samples)
        self._samples += len(samples)

    def close(self) -> None:
        if self._sinks is not None:
            self._sinks.close()

    @property
    def seconds(self) -> float:
        return self._samples / self._rate


@contextmanager
def _mouth(speaking: Speaking) -> Iterator[Mouth]:
    """A mouth that is closed whatever happens; Ctrl-C and full disks leave what was said before them, and say so."""
    output, is_new = speaking.output, False
    if output is not None:
        if output.suffix.lower() != ".wav":
            raise ConfigError(f"{output}: sound is written as .wav; give the file that ending")
        is_new = not output.exists()
        with output.open("ab"):  # what can't be written is told before the model is loaded
            pass
    mouth = Mouth(output, speaking.play)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with closing(mouth):
            yield mouth
    except KeyboardInterrupt:
        kept = f"; {mouth.seconds:.1f} s of speech are in {output}" if output else ""
        common.tell(f"interrupted{kept}")
        raise typer.Exit(common.INTERRUPTED) from None
    except OSError as error:
        kept = f"; {mouth.seconds:.1f} s of speech were written" if mouth.seconds else ""
        raise DataError(f"{error.filename or output or 'output'}: {error.strerror or error}{kept}") from error
    finally:
        signal.signal(signal.SIGINT, previous)
        if output is not None and is_new and not mouth.seconds:
            output.unlink(missing_ok=True)  # nothing was said
