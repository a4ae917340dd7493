"""`transcribe` and `ask`: what is said, and anything else, about sounds."""

import itertools
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_audio.cli import common, subtitles
from kimi_audio.cli.common import Batch
from kimi_audio.errors import ConfigError, DamagedAudio

if TYPE_CHECKING:
    from kimi_audio.model import KimiAudio

SAMPLE_RATE = 16_000

Sounds = Annotated[list[str], typer.Argument(metavar="AUDIO", help="Sound files of any common format and length.")]


class Recordings(Batch):
    """A batch of recordings: one that breaks off is heard as far as it goes, and told; code 2 comes last."""

    damaged = False

    @contextmanager
    def item(self) -> Iterator[None]:
        with warnings.catch_warnings(), super().item():
            warnings.simplefilter("always", DamagedAudio)
            show = warnings.showwarning

            def tell(message: Warning | str, category: type[Warning], *where: Any) -> None:
                if not issubclass(category, DamagedAudio):
                    show(message, category, *where)
                    return
                common.tell(str(message))
                self.damaged = True

            warnings.showwarning = tell
            yield

    def end(self) -> None:
        self.failed = self.failed or self.damaged
        super().end()


@common.command
def transcribe(
    audio: Sounds,
    json: common.Json = False,
    srt: Annotated[bool, typer.Option("--srt", help="SubRip subtitles instead of plain text.")] = False,
    vtt: Annotated[bool, typer.Option("--vtt", help="WebVTT subtitles instead of plain text.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write each file's subtitles into this folder.")
    ] = None,
    *,
    loading: common.Loading,
) -> None:
    """Write down what is said: one line per file, as each finishes.

    Of several files each line begins with the file's name and a tab. --json gives objects with "audio", "text",
    "seconds" (of sound) and "rtf" (seconds of work per second of sound). Subtitles go to standard output, or with
    -o into a folder as NAME.srt or NAME.vtt.
    """
    if json + srt + vtt > 1:
        raise ConfigError("--json, --srt and --vtt exclude each other; choose one")
    if output and not (srt or vtt):
        raise ConfigError("-o is the folder for subtitles; it needs --srt or --vtt")
    listener = loading.load(speaks=False)
    if srt or vtt:
        _subtitle(listener, audio, subtitles.Format.srt if srt else subtitles.Format.vtt, output)
        return
    batch = Recordings()
    for path in audio:
        with batch.item():
            with common.listening(path) as report:
                result = listener.transcribe(path, report=report)
            seconds, rtf = round(result.seconds, 3), round(result.rtf, 4)
            if json:
                common.print_json(audio=path, text=result.text, seconds=seconds, rtf=rtf)
                continue
            line = " ".join(result.text.split())
            print(f"{path}\t{line}" if len(audio) > 1 else line, flush=True)
            common.tell(f"{path}: {seconds:.1f} s of sound in {result.elapsed:.1f} s ({rtf:.2f} × real time)")
    batch.end()


@common.command
def ask(
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help="What to do, in plain words.")],
    audio: Annotated[list[str] | None, typer.Argument(metavar="[AUDIO]", help="The sounds it is about.")] = None,
    json: common.Json = False,
    *,
    loading: common.Loading,
) -> None:
    """Answer an instruction about one or more sounds, heard together in the order given.

    --json gives one object with "instruction", "audio" (a list), "text", "seconds" (of sound) and "rtf".
    """
    from kimi_audio.audio.decode import load_audio

    paths = audio or []
    sounds, batch = [], Recordings()
    for path in paths:
        with batch.item():
            sounds.append(load_audio(path, SAMPLE_RATE))
    if len(sounds) < len(paths):
        batch.end()
    listener = loading.load(speaks=False)
    started = time.perf_counter()
    text = listener.ask(instruction, *sounds).text
    elapsed = time.perf_counter() - started
    if json:
        seconds = sum(map(len, sounds)) / SAMPLE_RATE
        rtf = round(elapsed / seconds, 4) if seconds else None
        common.print_json(instruction=instruction, audio=paths, text=text, seconds=round(seconds, 3), rtf=rtf)
    else:
        print(text, flush=True)
    batch.end()


def _subtitle(listener: "KimiAudio", audio: list[str], kind: subtitles.Format, folder: Path | None) -> None:
    targets = [folder / f"{Path(path).stem}.{kind.value}" if folder else None for path in audio]
    if folder is None and len(audio) > 1:
        raise ConfigError(f"the subtitles of {len(audio)} files need a folder; give -o DIR")
    if len(set(targets)) < len(targets):
        raise ConfigError(f"two of the files would both become the same .{kind.value} in {folder}; do them one by one")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    batch = Recordings()
    for path, target in zip(audio, targets, strict=True):
        with batch.item():
            segments = listener.transcribe_segments(path)
            first = list(itertools.islice(segments, 1))  # what can't be read fails here, before a file is made
            with target.open("w", encoding="utf-8") if target else nullcontext(sys.stdout) as file:
                for piece in subtitles.pieces(itertools.chain(first, segments), kind):
                    print(piece, end="", file=file, flush=True)
            if target:
                common.tell(f"{path}: wrote {target}")
    batch.end()
