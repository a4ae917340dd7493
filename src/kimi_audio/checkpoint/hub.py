"""Where a model is: the bundled one, a folder, or a hub id whose files are fetched (data only, never code).

resolve()                                    # the bundled small model, or the folder in KIMI_AUDIO_MODEL
resolve("models/mine")                       # a folder
resolve("moonshotai/Kimi-Audio-7B-Instruct") # from the hub, or from its local cache
"""

import os
import re
from pathlib import Path

from kimi_audio.errors import CheckpointError

SEMANTIC_ID = "THUDM/glm-4-voice-tokenizer"
"""The official semantic tokenizer, a hub repository of its own."""

MODEL_FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tiktoken.model",
    "pronunciations.txt",
    "*.safetensors",
    "*.safetensors.index.json",
    "*/config.json",
    "*/preprocessor_config.json",
    "audio_detokenizer/*",
    "vocoder/*",
    "README.md",
]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PACKAGE = Path(__file__).resolve().parents[1]
_BUNDLED = (_PACKAGE / "models" / "tiny", _PACKAGE.parents[1] / "models" / "tiny")


def resolve(name: str | Path | None = None) -> Path:
    """The folder of a model: `None` is the bundled one, else a folder or a hub id.

    Raises:
        CheckpointError: it is neither a folder nor a hub id, or the hub cannot provide it.
    """
    if name is None:
        return bundled()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder}: is a file; a model is a folder or a hub id.")
    if not _HUB_ID.fullmatch(str(name)):
        raise CheckpointError(f"{name}: no such folder, and not a hub id of the form owner/name.")
    return fetch(str(name), MODEL_FILES)


def bundled() -> Path:
    """The folder in the environment variable KIMI_AUDIO_MODEL, or the model that comes with the package."""
    if chosen := os.environ.get("KIMI_AUDIO_MODEL"):
        return resolve(chosen)
    for folder in _BUNDLED:
        if folder.is_dir():
            return folder
    raise CheckpointError("no bundled model in this installation; name a folder or hub id, or set KIMI_AUDIO_MODEL.")


def fetch(repo_id: str, patterns: list[str]) -> Path:
    """Download the files of a hub repository that match `patterns`, or find them in the local cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=patterns))
    except GatedRepoError as error:
        raise CheckpointError(f"{repo_id}: access must be requested on the hub first, then log in there.") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{repo_id}: no such folder here and no such repository on the hub.") from error
    except (OSError, ValueError) as error:  # every other fault of the client: offline, interrupted, full disk
        raise CheckpointError(
            f"{repo_id}: is no folder here, and cannot be fetched from the hub ({type(error).__name__}); "
            "check the connection, or give the path of a downloaded copy."
        ) from error
