"""Every kind of source becomes the same mono sound; every kind of bad input becomes one sentence."""

import io
import os
import tracemalloc
import warnings

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_audio.audio import load_audio, stream_audio
from kimi_audio.errors import AudioError, DamagedAudio

RATE = 16000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)).astype(np.float32)


def libsndfile_bytes(samples: np.ndarray = TONE, rate=RATE, form="WAV", subtype=None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def ffmpeg_bytes(container: str, codec: str, rate: int = 48000) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono", bit_rate=96_000)
        samples = np.interp(np.arange(2 * rate) / rate, np.arange(2 * RATE) / RATE, TONE).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for resampled in av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size).resample(frame):
            out.mux(stream.encode(resampled))
        out.mux(stream.encode(None))
    return file.getvalue()


FILES = {
    "wav": libsndfile_bytes(subtype="PCM_16"),
    "wav float": libsndfile_bytes(subtype="FLOAT"),
    "flac": libsndfile_bytes(form="FLAC"),
    "vorbis": libsndfile_bytes(form="OGG", subtype="VORBIS"),
    "opus": libsndfile_bytes(form="OGG", subtype="OPUS"),
    "mp3": libsndfile_bytes(form="MP3"),
    "aiff": libsndfile_bytes(form="AIFF"),
    "m4a": ffmpeg_bytes("mp4", "aac"),
    "aac": ffmpeg_bytes("adts", "aac"),
    "webm": ffmpeg_bytes("webm", "libopus"),
    "ac3": ffmpeg_bytes("ac3", "ac3"),
    "wma": ffmpeg_bytes("asf", "wmav2"),
}


def pitch(samples: np.ndarray) -> float:
    """The strongest frequency, in Hz."""
    return float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * RATE / len(samples))


@pytest.mark.parametrize("form", FILES)
def test_formats(form):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedAudio)
        samples = load_audio(FILES[form])
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert len(samples) == pytest.approx(2 * RATE, abs=0.08 * RATE)  # codecs without lengths keep their padding
    assert pitch(samples) == pytest.approx(440, abs=1)
    assert samples[4000:-4000].std() == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("form", ["wav", "wav float", "flac", "vorbis", "opus", "mp3", "aiff"])
def test_reading_in_small_pieces_changes_no_sample(form):
    whole, _ = soundfile.read(io.BytesIO(FILES[form]), dtype="float32")
    assert np.allclose(load_audio(FILES[form]), whole, atol=1e-6)


def test_path_bytes_file_object_and_pipe_are_the_same(tmp_path):
    data = FILES["flac"]
    path = tmp_path / "tone.raw"  # the content decides, not the extension
    path.write_bytes(data)
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(data)  # fits into the pipe's buffer
    whole = load_audio(data)
    assert np.array_equal(load_audio(path), whole)
    assert np.array_equal(load_audio(str(path)), whole)
    assert np.array_equal(load_audio(bytearray(data)), whole)
    with path.open("rb") as file:
        file.seek(100)
        assert np.array_equal(load_audio(file), whole)
        assert not file.closed
    with os.fdopen(reader, "rb") as pipe:
        assert np.array_equal(load_audio(pipe), whole)


@pytest.mark.parametrize("rate", [1000, 7919, 8000, 22050, 48000, 96000, 768_000])
def test_rates(rate):
    tone = np.sin(2 * np.pi * 100 * np.arange(rate) / rate)
    samples = load_audio(libsndfile_bytes(tone, rate))
    assert len(samples) == pytest.approx(RATE, abs=2)
    assert pitch(samples) == pytest.approx(100, abs=1)
    assert len(load_audio(tone, 24000, rate=rate)) == pytest.approx(24000, abs=2)


@pytest.mark.parametrize("channels", [1, 2, 6, 32])
def test_channels_are_averaged(channels):
    gains = np.linspace(0.2, 1, channels)
    samples = load_audio(libsndfile_bytes(TONE[:, None] * gains, subtype="FLOAT"))
    assert np.allclose(samples, TONE * gains.mean(), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint8, np.float16, np.float64])
def test_arrays_of_any_sample_type_and_orientation(dtype):
    scale = {"i": np.iinfo(dtype).max + 1, "u": 128} if np.dtype(dtype).kind in "iu" else {"f": 1}
    array = (TONE * scale[np.dtype(dtype).kind] + (128 if dtype == np.uint8 else 0)).astype(dtype)
    tolerance = 1 / 127 if np.dtype(dtype).itemsize == 1 else 1e-3
    for shaped in (array, array[:, None], array[None], np.stack([array, array]), np.stack([array, array], 1)):
        assert np.allclose(load_audio(shaped, rate=RATE), TONE, atol=tolerance)


@settings(max_examples=20)
@given(st.floats(0.01, 3))
def test_blocks_joined_are_the_whole(block_seconds):
    blocks = list(stream_audio(FILES["m4a"], block_seconds=block_seconds))
    assert {len(block) for block in blocks[:-1]} <= {max(1, round(block_seconds * RATE))}
    assert np.array_equal(np.concatenate(blocks), load_audio(FILES["m4a"]))


def test_a_long_file_streams_in_bounded_memory(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(TONE[::2], 150), RATE // 2)  # five minutes, 19 MB once decoded
    tracemalloc.start()
    seconds = sum(len(block) for block in stream_audio(path)) / RATE
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds == pytest.approx(300, abs=0.01)
    assert peak < 4e6


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "aac", "webm", "aiff", "opus"])
def test_a_truncated_file_gives_what_precedes_the_break(form):
    data = FILES[form]
    with pytest.warns(DamagedAudio, match="the given bytes is damaged: it breaks off after"):
        samples = load_audio(data[: len(data) * 2 // 3])
    assert 0.3 * RATE < len(samples) < 1.6 * RATE
    assert pitch(samples) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "aiff", "webm"])
def test_a_file_that_declares_its_length_is_missed_what_it_lacks(form):
    data = FILES[form]
    with pytest.warns(DamagedAudio, match=r"breaks off after [01]\.\d\d s of 2\.0\d s"):
        load_audio(data[: len(data) // 2])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_out_of_a_pipe_is_whole(size):
    data = bytearray(FILES["wav"])
    place = data.index(b"data") + 4
    data[place : place + 4] = size.to_bytes(4, "little")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedAudio)
        assert len(load_audio(data)) == 2 * RATE


def test_a_flac_out_of_a_pipe_is_whole():
    data = bytearray(FILES["flac"])
    data[21] &= 0xF0  # the last 36 bits of these eight bytes count the samples
    data[22:26] = bytes(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedAudio)
        assert len(load_audio(data)) == 2 * RATE


def test_an_mp3_without_a_count_of_its_frames_is_read_to_the_end():
    loud = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 4 * RATE), np.zeros(4 * RATE)]).astype(np.float32)
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", RATE, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.9
    ) as variable:
        variable.write(loud)
    first_frame = file.getvalue().index(b"Info" if b"Info" in file.getvalue() else b"Xing")
    data = bytearray(file.getvalue())
    data[first_frame : first_frame + 4] = bytes(4)
    assert len(load_audio(data)) == pytest.approx(8 * RATE, abs=0.15 * RATE)


def refusal(source, **options) -> str:
    with pytest.raises(AudioError) as error:
        load_audio(source, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_bad_files(tmp_path):
    assert "No such file" in refusal(tmp_path / "missing.wav")
    assert "irectory" in refusal(tmp_path)
    assert "is empty" in refusal(b"")
    assert "not a sound file" in refusal(b"Dear diary, " * 100)
    assert "not a sound file" in refusal(b"\0" * 5000)
    assert "not a sound file" in refusal(b"RIFF" + b"\xff" * 200)
    assert "breaks off before its sound begins" in refusal(FILES["vorbis"][:4000])
    assert "holds no samples" in refusal(libsndfile_bytes(np.zeros(0)))
    assert "null" in refusal("a\0b")
    assert "StringIO is no source" in refusal(io.StringIO("text"))
    assert "NoneType is no source" in refusal(None)
    assert "1 Hz; whole numbers from 1000 to 768000" in refusal(libsndfile_bytes(rate=1))
    assert "goes with an array only" in refusal(FILES["wav"], rate=8000)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "secret.wav"
    path.write_bytes(FILES["wav"])
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_a_video_without_sound():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        out.mux(stream.encode(None))
    assert "no sound track" in refusal(file)


def test_a_playlist_opens_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private.wav").write_bytes(FILES["wav"])
    assert "not a sound file" in refusal(b"ffconcat version 1.0\nfile private.wav\n")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 32768.0])
def test_samples_that_are_no_sound(value):
    samples = TONE.copy()
    samples[RATE] = value
    assert "the sample at 1.000 s is" in refusal(samples, rate=RATE)
    assert "the sample at 1.000 s is" in refusal(libsndfile_bytes(samples, subtype="FLOAT"))


def test_bad_arrays():
    assert "pass rate=" in refusal(TONE)
    assert "holds no samples" in refusal(np.zeros((0, 2)), rate=RATE)
    assert "3 dimensions" in refusal(np.zeros((2, 2, 2)), rate=RATE)
    assert "complex64" in refusal(TONE * 1j, rate=RATE)
    assert "int64" in refusal(np.arange(100), rate=RATE)
    assert "is 0 Hz" in refusal(TONE, rate=0)
    assert "is 16000.5 Hz" in refusal(TONE, rate=16000.5)
    assert "asked for is -1 Hz" in refusal(TONE, rate=RATE, sample_rate=-1)


SHORT = {form: data[:4000] for form, data in FILES.items()}


@settings(max_examples=200)
@given(
    st.one_of(st.sampled_from(sorted(SHORT.values())), st.binary(max_size=1000)),
    st.lists(st.tuples(st.integers(0, 3999), st.integers(0, 255)), max_size=20),
    st.integers(0, 4000),
)
def test_fuzz(data, changes, length):
    """Damaged files and plain noise: sound or an AudioError comes out, nothing else."""
    damaged = bytearray(data)
    for place, value in changes:
        if place < len(damaged):
            damaged[place] = value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DamagedAudio)
            samples = load_audio(bytes(damaged[:length]))
    except AudioError:
        return
    assert samples.dtype == np.float32 and samples.size and np.isfinite(samples).all()
