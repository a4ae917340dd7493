"""Sound as the model hears it: decoding, resampling, speech segments and log-mel spectrograms."""

from kimi_audio.audio.decode import load_audio, stream_audio
from kimi_audio.audio.segments import Segment, speech_segments

__all__ = ["Segment", "load_audio", "speech_segments", "stream_audio"]
