"""Sound as the model hears it: decoding, resampling, speech segments and log-mel spectrograms."""

from kimi_audio.audio.decode import load_audio, stream_audio

__all__ = ["load_audio", "stream_audio"]
