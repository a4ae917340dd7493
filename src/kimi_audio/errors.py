"""Errors that are the user's to fix.

Each carries one sentence that names the file or field, what was wrong with it, and what is accepted, so that the
command line can print it as it stands. A bug in the code is never one of these: it keeps its traceback.
"""


class KimiAudioError(ValueError):
    """Base of all errors that a user can cause and correct."""


class AudioError(KimiAudioError):
    """Sound that can't be read, or that holds something other than sound."""


class DamagedAudio(UserWarning):
    """Sound that breaks off before its end; what precedes the break is used."""


class CheckpointError(KimiAudioError):
    """A model directory that is incomplete, damaged, or of another shape than its configuration says."""


class DataError(KimiAudioError):
    """A manifest, message or text that doesn't have the documented form."""


class ConfigError(KimiAudioError):
    """A setting or recipe whose fields contradict each other or are out of range."""
