"""Any sound in, mono float32 out.

    samples = load_audio("talk.m4a")                    # [samples] at 16 kHz
    for block in stream_audio("lecture.mp3"):           # an hour in ten-second blocks, in bounded memory
        ...
    samples = load_audio(array, rate=44100)             # [samples], [samples, channels] or [channels, samples]

Files are read by libsndfile (WAV, FLAC, Ogg, Opus, MP3, AIFF, CAF, ...) and, where it doesn't know the format, by
FFmpeg (AAC, M4A, MP4, WebM, WMA, AMR, ...). Channels are averaged; 1 to 768 kHz are resampled to the rate asked for,
16 kHz being what both encoders hear (SPEC §6).

A file that breaks off (half a download, a damaged tail) gives the sound up to the break and a `DamagedAudio` warning:
the decoder fails, or there is less than the file promises. If no sample precedes the break, or a sample is NaN,
infinite or absurdly loud, an `AudioError` says so.
"""

import io
import itertools
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
import soundfile

from kimi_audio.audio.blocks import Samples, reblock, resample
from kimi_audio.errors import AudioError, DamagedAudio

MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz
MAX_LEVEL = 1000.0  # 60 dB over full scale: floats that were never divided by their integer range
READ_FRAMES = 4096  # decoded at a time: what is lost before a break in a FLAC or Ogg file is less than this
SLACK = 0.1  # seconds: containers count the padding of their codecs in or out

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray


def load_audio(source: Source, sample_rate: int = 16000, *, rate: int | None = None) -> Samples:
    """Decode a whole sound to float32 [samples], mono, at `sample_rate` Hz; ±1 is full scale.

    Takes what `stream_audio` takes and raises what it raises.
    """
    return np.concatenate(list(stream_audio(source, sample_rate, rate=rate)))


def stream_audio(
    source: Source, sample_rate: int = 16000, block_seconds: float = 10.0, *, rate: int | None = None
) -> Iterator[Samples]:
    """Decode a sound block by block: float32 [samples], mono, at `sample_rate` Hz; only the last block is shorter.

    `source` is a path, the bytes of a file, a binary file object (read from its beginning if it can seek) or an
    array of float or 8-, 16- or 32-bit integer samples, whose longer axis is time and whose sample rate is `rate`.

    Raises `AudioError` if there is no sound in it, or none that can be read.
    """
    name = _name(source)
    _check_rate(sample_rate, "the sample rate asked for")
    if rate is not None and not _is_array(source):
        raise AudioError(f"{name}: a file knows its own sample rate; `rate` goes with an array only")
    pieces = _read_array(source, rate) if _is_array(source) else _read_file(source, name)
    samples = reblock(_to_mono(pieces, name, sample_rate), max(1, round(block_seconds * sample_rate)))
    first = next(samples, None)
    if first is None:
        raise AudioError(f"{name} holds no samples; at least one is needed")
    yield first
    yield from samples


def _to_mono(pieces: Iterator[tuple[int, np.ndarray]], name: str, sample_rate: int) -> Iterator[Samples]:
    """Average, check and resample (rate, [frames, channels]) pieces; the rate may change on the way."""

    def mono(piece: tuple[int, np.ndarray]) -> Samples:
        nonlocal seconds
        rate, frames = piece
        block = _as_float(frames, name).mean(axis=1, dtype=np.float32)
        good = np.abs(block) <= MAX_LEVEL  # false for NaN as well
        if not good.all():
            first = int(np.argmin(good))
            raise AudioError(
                f"{name}: the sample at {seconds + first / rate:.3f} s is {block[first]:g}; "
                "samples must be finite numbers, and floats have their full scale at ±1"
            )
        seconds += len(block) / rate
        return block

    seconds = 0.0
    for rate, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
        _check_rate(rate, f"{name}: the sample rate")
        yield from resample(map(mono, group), rate, sample_rate)


def _as_float(frames: np.ndarray, name: str) -> np.ndarray:
    """Scale integers to ±1; unsigned bytes are centred at 128, as in WAV."""
    if frames.dtype.kind == "f":
        return frames
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / 128 - 1
    if frames.dtype in (np.int8, np.int16, np.int32):
        return frames / np.float32(2 ** (8 * frames.dtype.itemsize - 1))
    raise AudioError(f"{name} has samples of type {frames.dtype}; float, uint8, int8, int16 and int32 are accepted")


def _check_rate(rate: Any, what: str) -> None:
    if not isinstance(rate, (int, np.integer)) or not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"{what} is {rate!r} Hz; whole numbers from {MIN_RATE} to {MAX_RATE} Hz are accepted")


# --- the three kinds of source, each as pieces (rate, [frames, channels]) ---------------------------------------------


def _is_array(source: Any) -> bool:
    return hasattr(source, "__array__")


def _name(source: Any) -> str:
    if _is_array(source):
        return "the array"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the given bytes"
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source) or "''"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the file object"


def _read_array(source: Any, rate: int | None) -> Iterator[tuple[int, np.ndarray]]:
    if rate is None:
        raise AudioError("an array has no sample rate of its own; pass rate=, in Hz")
    array = np.asarray(source)
    if array.ndim not in (1, 2):
        raise AudioError(f"the array has {array.ndim} dimensions; [samples], [samples, channels] or its transpose is")
    frames = array[:, None] if array.ndim == 1 else array if array.shape[0] >= array.shape[1] else array.T
    if frames.size:
        for start in range(0, len(frames), READ_FRAMES):
            yield rate, frames[start : start + READ_FRAMES]


def _read_file(source: Any, name: str) -> Iterator[tuple[int, np.ndarray]]:
    with _open(source, name) as file:
        if not file.read(1):
            raise AudioError(f"{name} is empty; a sound file is needed")
        file.seek(0)
        with ExitStack() as stack:
            try:
                sound = stack.enter_context(_SequentialSoundFile(file))
            except (soundfile.SoundFileError, TypeError):  # TypeError: any file named .raw
                sound = None
            if sound and not _guesses_its_length(sound, file):
                yield from _read_libsndfile(sound, file, name)
                return
        file.seek(0)
        yield from _read_ffmpeg(file, name)


@contextmanager
def _open(source: Any, name: str) -> Iterator[BinaryIO]:
    """A seekable binary file at its beginning, closed afterwards if it was opened here."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        try:
            file = open(source, "rb")  # noqa: SIM115 - closed below
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise AudioError(f"{name} can't be opened: {reason}; a readable sound file is needed") from error
        with file, _seekable(file) as seekable:
            yield seekable
    elif hasattr(source, "read") and not isinstance(source, io.TextIOBase):
        with _seekable(source) as seekable:
            yield seekable
    else:
        raise AudioError(
            f"{type(source).__name__} is no source of sound; a path, bytes, a binary file object or an array is"
        )


@contextmanager
def _seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file itself at its beginning or, for a pipe, a temporary copy on disk: formats need to seek."""
    if file.seekable():
        file.seek(0)
        yield file
    else:
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield copy


# --- the two libraries ------------------------------------------------------------------------------------------------


class _SequentialSoundFile(soundfile.SoundFile):
    """Reads on and on. soundfile seeks after each read where it can, and in MP3 that spoils what follows."""

    def seekable(self) -> bool:
        return False


def _read_libsndfile(sound: soundfile.SoundFile, file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    rate, count = sound.samplerate, 0
    stated = sound.frames if sound.frames < 2**62 else 0  # of a FLAC out of a pipe nobody knows
    try:
        while len(frames := sound.read(READ_FRAMES, dtype="float32", always_2d=True)):
            count += len(frames)
            yield rate, frames
    except soundfile.LibsndfileError:
        _tell_break(name, count / rate, stated / rate)
        return
    promised = max(stated, round(count * _promised_share(sound)))
    if promised - count > (SLACK * rate if sound.format == "MP3" else 0):
        _tell_break(name, count / rate, promised / rate)
    elif sound.format == "OGG" and _ends_within_a_page(file):
        _tell_break(name, count / rate)


def _promised_share(sound: soundfile.SoundFile) -> float:
    """Bytes of sound by the header of a WAV, AIFF or AU over those that are there. libsndfile goes by the latter.

    Programs that write into a pipe don't know the size, and put about 2^31 or 2^32 into the header.
    """
    found = re.search(r"(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", sound.extra_info)
    promised, there = map(int, found.groups()) if found else (0, 0)
    return promised / there if there and promised % 2**31 < 2**31 - 2**16 else 1.0


def _guesses_its_length(sound: soundfile.SoundFile, file: BinaryIO) -> bool:
    """Whether it is an MP3 whose first frame has no count. libsndfile reads no further than its guess of the length."""
    if sound.format != "MP3":
        return False
    position = file.tell()
    file.seek(0)
    head = file.read(10)
    if head[:3] == b"ID3":  # a tag, perhaps with pictures; its size in four times seven bits
        file.seek(10 + sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:10]))))
    first = head + file.read(2048)
    file.seek(position)
    return b"Xing" not in first and b"Info" not in first


def _ends_within_a_page(file: BinaryIO) -> bool:
    """Whether the last page of an Ogg file is cut short. A page says how long it is, but a file doesn't."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 2**17))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _read_ffmpeg(file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    try:
        # No protocol: a playlist must not make the reader open other files or addresses.
        container = av.open(file, "r", metadata_errors="ignore", options={"protocol_whitelist": "none"})
    except av.error.EOFError:
        _tell_break(name, 0.0)
        return
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(f"{name} is not a sound file of a known format, or its header is damaged") from error
    with container:
        if not container.streams.audio:
            raise AudioError(f"{name} has no sound track; a file with sound is needed")
        track, end = container.streams.audio[0], 0.0
        promised = _promised_end(container, track)
        try:
            for frame in container.decode(track):
                samples = frame.to_ndarray()  # planar [channels, frames]; packed [1, frames * channels]
                end = (frame.time or end) + frame.samples / frame.sample_rate
                planar = frame.format.is_planar
                yield frame.sample_rate, samples.T if planar else samples.reshape(-1, frame.layout.nb_channels)
        except av.error.FFmpegError:
            _tell_break(name, end, promised)
        else:
            if promised - end > SLACK:
                _tell_break(name, end, promised)


def _promised_end(container: Any, track: Any) -> float:
    """Where MP4 and Matroska say that a track ends, in seconds; 0 for others, of which FFmpeg guesses it."""
    if not {"mp4", "webm"} & set(container.format.name.split(",")):
        return 0.0
    if track.duration is not None:
        return float(((track.start_time or 0) + track.duration) * track.time_base)
    is_alone = len(container.streams) == 1
    return container.duration / av.time_base if is_alone and container.duration else 0.0


def _tell_break(name: str, seconds: float, promised: float = 0.0) -> None:
    if not seconds:
        raise AudioError(f"{name} breaks off before its sound begins; a whole file is needed")
    of = f" of {promised:.2f} s" if promised > seconds else ""
    message = f"{name} is damaged: it breaks off after {seconds:.2f} s{of}; what precedes the break is used"
    warnings.warn(message, DamagedAudio, stacklevel=2)
