"""Preparers: a miniature of each official download becomes a manifest that the benchmarks read; faults are told."""

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from kimi_audio.audio import load_audio
from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation.benchmarks import bundled_benchmarks
from kimi_audio.evaluation.prepare import PREPARERS, prepare
from kimi_audio.evaluation.rating import conversation_prompts

BENCHMARKS = bundled_benchmarks()


def sound(path: Path, seconds: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.sin(np.arange(int(seconds * 16_000)) * 0.1)
    soundfile.write(path, samples, 16_000)
    return path


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def librispeech(root: Path) -> None:
    chapter = root / "LibriSpeech/test-clean/1089/134686"
    text(
        chapter / "1089-134686.trans.txt", "1089-134686-0000 HE HOPED", "1089-134686-0001 STUFF IT", "1089-134686-0002"
    )
    for number in (0, 2, 3):
        sound(chapter / f"1089-134686-000{number}.flac")
    text(root / "LibriSpeech/test-other/367/130732/367-130732.trans.txt", "367-130732-0000 LOBSTERS")
    sound(root / "LibriSpeech/test-other/367/130732/367-130732-0000.flac")


def fleurs(root: Path) -> None:
    for language, words in (("en_us", "however due to the slow"), ("cmn_hans_cn", "这 并 不 是 告 别")):
        audio = root / "data" / language / "audio"
        rows = ["1904\t1.wav\tRaw.\t{0}\tl e t\t3200\tMALE", "1905\t2.wav\tRaw.\t{0}\tl e t\t3200\tMALE", "1906\t3.wav"]
        text(root / "data" / language / "test.tsv", *(row.format(words) for row in rows))
        sound(root / "scratch/test/1.wav")
        audio.mkdir()
        with tarfile.open(audio / "test.tar.gz", "w:gz") as archive:
            archive.add(root / "scratch/test", "test")
    shutil.rmtree(root / "scratch")


def aishell_1(root: Path) -> None:
    base = root / "data_aishell"
    lines = ("BAC009S0002W0122 而 对 楼市", "BAC009S0764W0121 甚至 出现 交易", "BAC009S0764W0122 一二 线")
    text(base / "transcript/aishell_transcript_v0.8.txt", *lines)
    for key in ("BAC009S0764W0121", "BAC009S0764W0499"):
        sound(base / f"wav/test/S0764/{key}.wav")


def aishell_2(root: Path) -> None:
    base = root / "AISHELL-DEV-TEST-SET/iOS/test"
    text(base / "wav.scp", *(f"IT0011W000{n}\twav/T0011/IT0011W000{n}.wav" for n in (1, 2)))
    text(base / "trans.txt", "IT0011W0001\t换一首歌", "IT0011W0002\t继续播放", "IT0011W0003\t停")
    sound(base / "wav/T0011/IT0011W0001.wav")


def wenetspeech(root: Path) -> None:
    def segment(sid: str, begin: float, end: float, *subsets: str) -> dict[str, Any]:
        return {"sid": sid, "begin_time": begin, "end_time": end, "subsets": [*subsets], "text": "你好 世界"}

    audios = [
        {"aid": "Y1", "path": "audio/test_net/Y1.wav", "segments": [segment("Y1_S1", 0.2, 0.7, "TEST_NET"),
                                                                    segment("Y1_S2", 5.0, 6.0, "TEST_NET")]},
        {"aid": "R1", "path": "audio/test_meeting/R1.wav", "segments": [segment("R1_S1", 0, 0.5, "TEST_MEETING")]},
        {"aid": "R2", "path": "audio/test_meeting/R2.wav", "segments": [segment("R2_S1", 0, 0.5, "TEST_MEETING")]},
        {"aid": "X1", "path": "audio/train/X1.wav", "segments": [segment("X1_S1", 0, 0.5, "L", "M")]},
    ]  # fmt: skip
    text(root / "WenetSpeech.json", json.dumps({"dataset": "WenetSpeech", "audios": audios}, ensure_ascii=False))
    for audio in audios[:2]:
        sound(root / audio["path"], seconds=1.0)


def mmau(root: Path) -> None:
    def item(name: str, task: str, answer: str) -> dict[str, Any]:
        return {"id": name, "audio_id": f"./test-mini-audios/{name}.wav", "question": "Who speaks?", "answer": answer,
                "choices": ["Man", "Woman"], "task": task, "difficulty": "easy", "split": "test-mini"}  # fmt: skip

    items = [
        item("a", "sound", "Man"),
        item("b", "music", "Woman"),
        item("c", "speech", "Man"),
        item("d", "speech", "?"),
    ]
    text(root / "mmau-test-mini.json", json.dumps(items))
    for name in "abcd":
        sound(root / f"test-mini-audios/{name}.wav")


def clothoaqa(root: Path) -> None:
    def rows(*answers: str) -> list[str]:
        return [f'river mouth3.wav,"Are there waves, {len(answers)}?",{answer},yes' for answer in answers]

    header = "file_name,QuestionText,answer,confidence"
    text(root / "clotho_aqa_test.csv", header, *rows("yes", "Yes", "no"), *rows("one", "two"), "gone.wav,Who?,a,yes",
         "gone.wav,Who?,a,yes")  # fmt: skip
    text(root / "clotho_aqa_val.csv", header, *rows("no", "no"))
    sound(root / "audio_files/river mouth3.wav")


def vocalsound(root: Path) -> None:
    labels = {"f0003_0_cough": "/m/01b_21", "f0003_0_sigh": "/m/07plz5l", "f0003_0_yawn": "/m/0"}
    data = [{"wav": f"/data/sls/audio_16k/{name}.wav", "labels": label} for name, label in labels.items()]
    text(root / "vs/datafiles/te.json", json.dumps({"data": data}))
    for name in labels:
        sound(root / f"vs/audio_16k/{name}.wav")


def nonspeech7k(root: Path) -> None:
    rows = ["Filename,Class ID,Classname", "1_0.wav,0,breath", "2_0.wav,5,Sneezing", "3_0.wav,9,hiccup"]
    text(root / "metadata of test set.csv", *rows)
    for number in (1, 2, 3):
        sound(root / f"test/{number}_0.wav")


def meld(root: Path) -> None:
    rows = [
        "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime",
        '1,"Why, so?",Mark,surprise,positive,0,0,3,19,"00:14:38,127","00:14:40,378"',
        '2,Oh.,Rachel,anger,negative,0,1,3,19,"00:14:40,629","00:14:47,385"',
        '3,Oh.,Rachel,joy,positive,38,4,3,19,"00:13:31,060","00:18:36,000"',
    ]
    text(root / "MELD.Raw/test_sent_emo.csv", *rows)
    clip = root / "MELD.Raw/output_repeated_splits_test/dia0_utt0.mp4"
    clip.parent.mkdir()
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for number in range(10):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1024), 0.1, np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def tut2017(root: Path) -> None:
    base = root / "TUT-acoustic-scenes-2017-evaluation"
    text(base / "meta.txt", "audio/1.wav\tcafe/restaurant\tb1", "audio/2.wav\tcity_center\tb2", "audio/3.wav\tbeach",
         "audio/4.wav")  # fmt: skip
    for number in (1, 2, 4):
        sound(base / f"audio/{number}.wav")


def cochlscene(root: Path) -> None:
    for place in ("Test/CrowdedIndoor", "Test/SubwayStation", "Test/Moon", "Val/Bus"):
        sound(root / f"CochlScene/{place}/{Path(place).name}_user0009_14897252_005.wav")
    (root / "CochlScene/Test/Moon/Moon_user0009_14897252_005.wav").write_text("no sound")


def openaudiobench(root: Path) -> None:
    tables = {
        "alpaca_eval": ("instruction,output", "Who are you?,A model."),
        "llama_questions": ("Questions,Answer", "What is 2?,two"),
        "reasoning_qa": ("Prompt,参考答案", "小明几岁?,五岁"),
        "trivia_qa": ("question,answer_normalized_aliases", "\"Who?\",\"['sinclair lewis', 'grace hegger']\""),
        "web_questions": ("question,answers", "What tongue?,\"['English', 'Patois']\""),
    }
    for subset, (header, row) in tables.items():
        base = root / "OpenAudioBench/eval_datas" / subset
        text(base / f"{subset}.csv", f"{header},audio_filename", f"{row},{subset}_0.wav", f"{row},{subset}_9.wav")
        sound(base / f"audios/{subset}_0.wav")


def voicebench(root: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    data = sound(root / "scratch.wav").read_bytes()
    fields: dict[str, dict[str, Any]] = {
        "alpacaeval_full/test": {}, "commoneval/test": {}, "sd-qa/usa": {"reference": "42"},
        "sd-qa/aus": {"reference": "not used"}, "mmsu/law": {"reference": "B"}, "mmsu/other": {"reference": "D"},
        "openbookqa/test": {"reference": "A"}, "advbench/test": {},
        "ifeval/test": {"key": 1, "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
                        "kwargs": [{"num_words": None, "relation": None}, {"num_words": 9, "relation": "at least"}]},
    }  # fmt: skip
    for split, row in fields.items():
        rows = [{"audio": {"bytes": data, "path": "x.wav"}, "prompt": "Say.", **row},
                {"audio": {"bytes": b"", "path": "x.wav"}, "prompt": "Say.", **row}]  # fmt: skip
        path = root / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def conversation(root: Path) -> None:
    for row in conversation_prompts()[:2]:
        sound(root / f"{row['id']}.wav")


# The miniature, what its benchmarks find right, and what each fault says.
CASES: dict[str, tuple[Callable[[Path], None], dict[str, list[str]], list[str]]] = {
    "librispeech": (
        librispeech,
        {"librispeech-clean": ["HE HOPED"], "librispeech-other": ["LOBSTERS"]},
        ["0001.flac does not exist", "0002: text is missing", "0003: text is missing"],
    ),
    "fleurs": (
        fleurs,
        {"fleurs-en": ["however due to the slow"], "fleurs-zh": ["这 并 不 是 告 别"]},
        ["2.wav does not exist", "test.tsv:3: 2 columns; 7 are expected"] * 2,
    ),
    "aishell-1": (
        aishell_1,
        {"aishell-1": ["甚至出现交易"]},
        ["W0122.wav does not exist", "W0499: text is missing"],
    ),
    "aishell-2": (
        aishell_2,
        {"aishell-2-ios": ["换一首歌"]},
        ["W0002.wav does not exist", "IT0011W0003: .* does not say where its sound is"],
    ),
    "wenetspeech": (
        wenetspeech,
        {"wenetspeech-net": ["你好 世界"], "wenetspeech-meeting": ["你好 世界"]},
        ["Y1_S2.flac does not exist", "R2_S1: .*R2.wav"],
    ),
    "mmau": (
        mmau,
        {"mmau-sound": ["Man"], "mmau-music": ["Woman"], "mmau-speech": ["Man"]},
        ["d: the answer '\\?' is none of the choices"],
    ),
    "clothoaqa": (
        clothoaqa,
        {"clothoaqa-test": ["yes"], "clothoaqa-dev": ["no"]},
        ["test-00002: .*gone.wav does not exist"],
    ),
    "vocalsound": (vocalsound, {"vocalsound": ["Cough", "Sigh"]}, ["f0003_0_yawn: label is missing"]),
    "nonspeech7k": (nonspeech7k, {"nonspeech7k": ["Breath", "Sneeze"]}, ["3_0: label is missing"]),
    "meld": (meld, {"meld": ["surprise"]}, ["dia0_utt1.mp4 does not exist", "dia38_utt4: longer than 30 seconds"]),
    "tut2017": (
        tut2017,
        {"tut2017": ["cafe or restaurant", "city center"]},
        ["3.wav does not exist", "4: label is missing"],
    ),
    "cochlscene": (
        cochlscene,
        {"cochlscene-test": ["crowded indoor", "subway station"], "cochlscene-dev": ["bus"]},
        ["Moon_user0009_14897252_005: label is missing"],
    ),
    "openaudiobench": (
        openaudiobench,
        {
            "openaudiobench-alpacaeval": [""],
            "openaudiobench-llama-questions": ["two"],
            "openaudiobench-reasoning-qa": ["五岁"],
            "openaudiobench-triviaqa": ["sinclair lewis or grace hegger"],
            "openaudiobench-web-questions": ["English or Patois"],
        },
        ["_9.wav does not exist"] * 5,
    ),
    "voicebench": (
        voicebench,
        {
            "voicebench-alpacaeval": [""],
            "voicebench-commoneval": [""],
            "voicebench-sd-qa": ["42"],
            "voicebench-mmsu": ["B", "D"],
            "voicebench-openbookqa": ["A"],
            "voicebench-ifeval": [""],
            "voicebench-advbench": [""],
        },
        ["there is no sound in the row"] * 8,
    ),
    "conversation": (
        conversation,
        {"conversation": [row["text"] for row in conversation_prompts()[:2]]},
        [rf"{row['id']}\.wav does not exist" for row in conversation_prompts()[2:]],
    ),
}


@pytest.fixture
def download(tmp_path: Path) -> Path:
    folder = tmp_path / "download"
    folder.mkdir()
    return folder


def test_every_preparer_has_its_miniature() -> None:
    assert CASES.keys() == PREPARERS.keys()
    prepared = {benchmark.name for benchmark in BENCHMARKS.values() if benchmark.folder in PREPARERS}
    assert prepared == {name for _, right, _ in CASES.values() for name in right}


@pytest.mark.parametrize("name", CASES)
def test_a_download_becomes_what_its_benchmarks_read(name: str, tmp_path: Path, download: Path) -> None:
    make, right, faults = CASES[name]
    make(download)
    report = prepare(name, download, tmp_path / "data")
    assert len(report.faults) == len(faults)
    for told, expected in zip(report.faults, faults, strict=True):
        assert re.search(expected, told), f"{told!r} does not say {expected!r}"
    assert report.rows == sum(map(len, right.values()))
    for benchmark, references in right.items():
        samples, unusable = BENCHMARKS[benchmark].samples(tmp_path / "data")
        assert unusable == [] and [sample.reference for sample in samples] == references
        assert all(len(load_audio(path)) > 0 for sample in samples for path in sample.audios)


@pytest.mark.parametrize("name", ["vocalsound", "nonspeech7k", "meld", "tut2017", "cochlscene", "mmau"])
def test_choices_are_those_of_the_question(name: str, tmp_path: Path, download: Path) -> None:
    make, right, _ = CASES[name]
    make(download)
    prepare(name, download, tmp_path / "data")
    for benchmark in right:
        for sample in BENCHMARKS[benchmark].samples(tmp_path / "data")[0]:
            choices = [f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(sample.fields["choices"])]
            assert sample.reference in sample.fields["choices"]
            asked = (sample.instruction or "").replace("\n", " ")
            assert " ".join(choices) in asked and f"({chr(ord('A') + len(choices))})" not in asked


def test_segments_are_cut_where_they_begin(tmp_path: Path, download: Path) -> None:
    wenetspeech(download)
    prepare("wenetspeech", download, tmp_path / "data")
    (sample,), _ = BENCHMARKS["wenetspeech-net"].samples(tmp_path / "data")
    whole = load_audio(download / "audio/test_net/Y1.wav")
    assert sample.seconds == 0.5
    assert np.allclose(load_audio(sample.audios[0]), whole[3200:11200], atol=1e-4)


def test_rules_of_ifeval_keep_only_their_own_arguments(tmp_path: Path, download: Path) -> None:
    voicebench(download)
    prepare("voicebench", download, tmp_path / "data")
    (sample,), _ = BENCHMARKS["voicebench-ifeval"].samples(tmp_path / "data")
    assert sample.fields["instruction_id_list"] == ["punctuation:no_comma", "length_constraints:number_words"]
    assert sample.fields["kwargs"] == [{}, {"num_words": 9, "relation": "at least"}]
    assert sample.instruction == ""


@pytest.mark.parametrize("name", ["fleurs", "wenetspeech", "meld", "voicebench"])
def test_what_was_unpacked_stays(name: str, tmp_path: Path, download: Path) -> None:
    CASES[name][0](download)
    first = prepare(name, download, tmp_path / "data")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*") if path.suffix != ".jsonl"}
    lost = next(path for path in kept if path.is_file())
    lost.unlink()
    second = prepare(name, download, tmp_path / "data")
    assert (second.rows, second.faults) == (first.rows, first.faults) and lost.is_file()
    unchanged = {path for path in kept if path.is_file() and path != lost}
    assert all(path.stat().st_mtime_ns == kept[path] for path in unchanged)
    assert not list((tmp_path / "data").rglob(".*"))


@pytest.mark.parametrize("name", PREPARERS)
def test_another_folder_is_told_what_is_needed(name: str, tmp_path: Path, download: Path) -> None:
    with pytest.raises(DataError, match=f"{name} needs .* from "):
        prepare(name, download, tmp_path / "data")
    with pytest.raises(DataError, match="it is no folder"):
        prepare(name, tmp_path / "nowhere", tmp_path / "data")


def test_nothing_left_is_an_error_that_names_the_first_fault(tmp_path: Path, download: Path) -> None:
    librispeech(download)
    for path in download.rglob("*.flac"):
        path.write_text("no sound")
    with pytest.raises(DataError, match=r"no item .* the first fault: 1089-134686-0000: .* can't be read"):
        prepare("librispeech", download, tmp_path / "data")


def test_a_damaged_table_is_named(tmp_path: Path, download: Path) -> None:
    text(download / "mmau-test-mini.json", "[{")
    with pytest.raises(DataError, match=r"mmau-test-mini\.json is not valid JSON"):
        prepare("mmau", download, tmp_path / "data")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'libri'.*librispeech, fleurs"):
        prepare("libri", tmp_path, tmp_path)
