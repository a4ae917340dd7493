"""Turn an official download into the manifest that its benchmarks read.

    report = prepare("librispeech", Path("downloads"), Path("data"))      # data/librispeech/manifest.jsonl
    print(report.rows, *report.faults)

`PREPARERS` says for each what to download and what the folder must look like; details are in the modules. Sounds stay
where they are, unless they must be unpacked or cut: then they are kept beside the manifest, and what is there already
is not made again. What can't be used is told, item by item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation.prepare import chat, conversation, fleurs, librispeech, mandarin, questions, sounds
from kimi_audio.evaluation.prepare.common import Manifest, Report

__all__ = ["PREPARERS", "Preparer", "Report", "prepare"]


@dataclass(frozen=True)
class Preparer:
    """How one download is read: `source` is where it comes from, `layout` what must be in its folder."""

    function: Callable[[Path, Manifest], None]
    source: str
    layout: str


PREPARERS = {
    "librispeech": Preparer(
        librispeech.librispeech,
        "https://www.openslr.org/12: test-clean.tar.gz, test-other.tar.gz",
        "LibriSpeech/test-clean/SPEAKER/CHAPTER/*.flac and *.trans.txt; test-other likewise",
    ),
    "fleurs": Preparer(
        fleurs.fleurs,
        "https://huggingface.co/datasets/google/fleurs: data/en_us, data/cmn_hans_cn",
        "data/en_us/test.tsv and data/en_us/audio/test.tar.gz; cmn_hans_cn likewise",
    ),
    "aishell-1": Preparer(
        mandarin.aishell_1,
        "https://www.openslr.org/33: data_aishell.tgz",
        "data_aishell/wav/test/SPEAKER/*.wav (the archives in wav unpacked) and "
        "data_aishell/transcript/aishell_transcript_v0.8.txt",
    ),
    "aishell-2": Preparer(
        mandarin.aishell_2,
        "https://www.aishelltech.com/aishell_2: test and development data",
        "iOS/test/wav.scp, trans.txt and wav (test.tar.gz unpacked)",
    ),
    "wenetspeech": Preparer(
        mandarin.wenetspeech,
        "https://github.com/wenet-e2e/WenetSpeech, on request",
        "WenetSpeech.json, audio/test_net and audio/test_meeting",
    ),
    "mmau": Preparer(
        questions.mmau,
        "https://github.com/Sakshi113/MMAU: mmau-test-mini.json and test-mini-audios",
        "mmau-test-mini.json beside test-mini-audios/*.wav",
    ),
    "clothoaqa": Preparer(
        questions.clothoaqa,
        "https://zenodo.org/records/6473207: audio_files.zip, clotho_aqa_test.csv, clotho_aqa_val.csv",
        "clotho_aqa_test.csv, clotho_aqa_val.csv and audio_files/*.wav",
    ),
    "vocalsound": Preparer(
        sounds.vocalsound,
        "https://github.com/YuanGongND/vocalsound: vs_release_16k.zip or vs_release_44k.zip",
        "datafiles/te.json beside audio_16k/*.wav or audio_44k/*.wav",
    ),
    "nonspeech7k": Preparer(
        sounds.nonspeech7k,
        "https://zenodo.org/records/6967442: test.zip, metadata of test set.csv",
        "`metadata of test set.csv` beside test/*.wav",
    ),
    "meld": Preparer(
        questions.meld,
        "https://github.com/declare-lab/MELD: MELD.Raw.tar.gz",
        "test_sent_emo.csv and output_repeated_splits_test/dia*_utt*.mp4 (test.tar.gz unpacked)",
    ),
    "tut2017": Preparer(
        sounds.tut2017,
        "https://zenodo.org/records/1040168: TUT-acoustic-scenes-2017-evaluation, meta and audio",
        "TUT-acoustic-scenes-2017-evaluation/meta.txt and audio/*.wav",
    ),
    "cochlscene": Preparer(
        sounds.cochlscene,
        "https://zenodo.org/records/7080122: CochlScene.zip and its parts",
        "CochlScene/Test/SCENE/*.wav; Val likewise",
    ),
    "openaudiobench": Preparer(
        chat.openaudiobench,
        "https://huggingface.co/datasets/baichuan-inc/OpenAudioBench",
        "eval_datas/SUBSET/SUBSET.csv and eval_datas/SUBSET/audios",
    ),
    "voicebench": Preparer(
        chat.voicebench,
        "https://huggingface.co/datasets/hlt-lab/voicebench",
        "alpacaeval_full/test-*.parquet and so on; sd-qa/usa-*.parquet",
    ),
    "conversation": Preparer(
        conversation.conversation,
        "kimi_audio/evaluation/rating_assets/conversation_prompts.jsonl",
        "recordings of the questions, named by their ids: speed-1.wav and so on",
    ),
}


def prepare(name: str, download: Path, data: Path) -> Report:
    """Write DATA/<name>/manifest.jsonl for the items of a download.

    Raises:
        ConfigError: for a name that is none of `PREPARERS`.
        DataError: when the download does not look as it must, or nothing of it can be used.
    """
    if name not in PREPARERS:
        raise ConfigError(f"there is no preparer {name!r}; there are {', '.join(PREPARERS)}")
    preparer, manifest = PREPARERS[name], Manifest(data / name)
    try:
        if not download.is_dir():
            raise DataError("it is no folder")
        preparer.function(download, manifest)
        return manifest.write()
    except DataError as error:
        raise DataError(f"{download}: {error}. {name} needs {preparer.layout}, from {preparer.source}") from None
