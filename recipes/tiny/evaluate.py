"""What the tiny model scores, next to Whisper models on the same files.

    python recipes/tiny/evaluate.py --model models/tiny --whisper WHISPER_BASE --whisper WHISPER_TINY_EN \
        --questions SPOKEN_QUESTIONS --written SMOLLM2 -o results.json

DATA (`--data`) is the folder of labelled sets; only their `test` splits are used. Whisper models and the text LLM are
ordinary Hugging Face folders. SPOKEN_QUESTIONS holds recordings of `evaluation/questions.jsonl`, named by their ids
(`q000.wav`; several voices: `q000_flite-awb.wav`). Answers are kept in `results-predictions/` beside the results and
used again. Prints a Markdown table. Whisper only transcribes, so it has no figure where an instruction is given.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import quiet
import soundfile
from chat import ChatModel
from evaluation.score_questions import is_correct

from kimi_audio.evaluation import metrics, report
from kimi_audio.evaluation.runner import Item, Task, run
from kimi_audio.evaluation.systems import KimiAudioSystem, Sound, System, WhisperSystem, fingerprint

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("KIMI_AUDIO_SHARED", HERE.parents[2] / "shared"))
SOUND_QUESTION = "What do you hear?"
EMOTION_QUESTION = "How does the speaker feel?"
RATE = 16000
ANSWER_TOKENS = 60
NOISES = {"airplane", "engine", "helicopter", "rain", "sea waves", "train", "vacuum cleaner", "washing machine", "wind"}

Score = Callable[[Sequence[Item], Sequence[str]], float]


class WrittenSystem:
    """The text LLM that the model starts from; it reads the question: what a listener can at best equal."""

    instructable = True

    def __init__(self, folder: Path):
        self.name, self.fingerprint = f"{folder.name} (written)", fingerprint(folder)
        self._chat = ChatModel(folder)

    def answer(self, audio: Sound | None, instruction: str | None) -> str:
        assert audio is None and instruction, "a text model reads its question"
        return self._chat.answer([instruction], ANSWER_TOKENS)[0]


def test_items(folder: Path, field: str, instruction: str | None = None) -> list[Item]:
    """The test split of one labelled set; `field` of its manifest is what is right."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        Item(row["audio"], folder / row["audio"], str(row[field]), instruction, row["duration"])
        for row in rows
        if row["split"] == "test"
    ]


def share_right(right: Callable[[str, str], bool]) -> Score:
    """Accuracy, where `right(reference, answer)` judges one answer."""
    return lambda items, answers: float(
        np.mean([right(item.reference, answer) for item, answer in zip(items, answers, strict=True)])
    )


def word_error_rate(items: Sequence[Item], answers: Sequence[str]) -> float:
    return metrics.word_errors([item.reference for item in items], answers).rate


def invented_words(items: Sequence[Item], answers: Sequence[str]) -> float:
    return metrics.words_per_minute(answers, sum(item.seconds for item in items))


def listening_tasks(data: Path) -> list[Task]:
    """Recognition, digits, sounds and emotions, each on the test split of its set."""
    labels = json.loads((HERE / "evaluation" / "labels.json").read_text())

    def names(kind: str) -> Score:
        return share_right(lambda label, answer: metrics.named_label(answer, labels[kind]) == label)

    clips = test_items(data / "en_librispeech_mini", "text")
    accented = test_items(data / "en_speechocean762", "text")
    digits = test_items(data / "digits_fsdd", "label")
    sounds = test_items(data / "sound_esc50", "label", SOUND_QUESTION)
    emotions = test_items(data / "emotion_ravdess", "label", EMOTION_QUESTION)
    right_digit = share_right(lambda digit, answer: metrics.is_digit(answer, int(digit)))
    return [
        Task("librispeech", "LibriSpeech clips, WER", "%", clips, word_error_rate),
        Task("speechocean", "speechocean762, WER", "%", accented, word_error_rate),
        Task("digits", "spoken digits, unseen speakers, accuracy", "%", digits, right_digit),
        Task("sounds", "ESC-50 fold 5, asked in plain words, accuracy", "%", sounds, names("sound")),
        Task("emotion", "RAVDESS emotion, unseen actors, accuracy", "%", emotions, names("emotion")),
    ]


def question_items(spoken: Path | None) -> list[Item]:
    """The fixed questions: as recordings in `spoken`, or in writing."""
    rows = [json.loads(line) for line in (HERE / "evaluation" / "questions.jsonl").read_text().splitlines()]
    items = []
    for row in rows:
        accepted = json.dumps(row["patterns"])
        if spoken is None:
            items.append(Item(row["id"], None, accepted, row["question"]))
        else:
            recordings = sorted(spoken.glob(f"{row['id']}*.*"))
            items += [Item(path.name, path, accepted, "", soundfile.info(path).duration) for path in recordings]
    return items


def question_task(name: str, title: str, spoken: Path | None) -> Task:
    right = share_right(lambda patterns, answer: is_correct(answer, json.loads(patterns)))
    return Task(name, title, "%", question_items(spoken), right)


def quiet_tasks(data: Path) -> list[Task]:
    """Sounds in which nobody speaks: every word transcribed from them is invented."""
    events = test_items(data / "sound_esc50", "label")
    groups = {
        "silence": made("quiet", quiet.silence),
        "noise": [item for item in events if item.reference in NOISES] + made("hiss", quiet.coloured_noise),
        "sounds": [item for item in events if item.reference not in NOISES],
        "music": made("chords", chords) + made("tone", tone),
    }
    return [
        Task(f"no-words-{kind}", f"{kind}, invented words per minute", "", items, invented_words)
        for kind, items in groups.items()
    ]


def made(name: str, make: quiet.Maker, count: int = 12, seconds: int = 10) -> list[Item]:
    """`count` synthetic sounds, the same in every run and none of those that `quiet.py` writes for training."""
    sounds = [make(np.random.default_rng([5, number]), seconds * RATE).astype(np.float32) for number in range(count)]
    return [Item(f"{name}-{number}", sound, "", None, seconds) for number, sound in enumerate(sounds)]


def tone(rng: np.random.Generator, length: int) -> np.ndarray:
    """A sine that glides between two frequencies."""
    start, end = rng.uniform(80, 4000, 2)
    return 0.3 * np.sin(2 * np.pi * np.cumsum(np.linspace(start, end, length)) / RATE)


def chords(rng: np.random.Generator, length: int) -> np.ndarray:
    """Plucked notes of a major scale over a held chord, two to five notes a second."""
    times, scale = np.arange(length) / RATE, np.array([0, 2, 4, 5, 7, 9, 11, 12])
    root, beat = rng.uniform(110, 330), 1 / rng.uniform(2, 5)
    chord = [0.05 * np.sin(2 * np.pi * root / 2 * 2 ** (step / 12) * times) for step in (0, 4, 7)]
    sound = np.sum(chord, axis=0)
    for onset in np.arange(0, times[-1], beat):
        pitch, since = root * 2 ** (rng.choice(scale) / 12), times - onset
        pluck = np.where(since >= 0, np.exp(-4 * np.maximum(since, 0)), 0)
        sound += 0.2 * pluck * np.sum([np.sin(2 * np.pi * pitch * n * since) / n for n in (1, 2, 3, 4)], axis=0)
    return sound


def evaluate(tasks: Sequence[Task], systems: Sequence[System], predictions: Path) -> dict[str, dict[str, float]]:
    """The figures of each task, by system."""
    return {
        task.name: {
            system.name: task.score(task.items, run(system, task, predictions))
            for system in systems
            if task.suits(system)
        }
        for task in tasks
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", default=[], help="a Kimi-Audio folder")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--whisper", type=Path, action="append", default=[])
    parser.add_argument("--written", type=Path, help="text LLM that answers the written questions")
    parser.add_argument("--questions", type=Path, help="folder of spoken questions")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--tasks", nargs="+", help="only these (librispeech, speechocean, digits, sounds, …)")
    parser.add_argument("--limit", type=int, help="only so many items of each task, spread over it")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()

    tasks = listening_tasks(args.data) + quiet_tasks(args.data)
    if args.questions:
        tasks.append(question_task("questions", "spoken questions, right answers", args.questions))
    tasks = [chosen(task, args.limit) for task in tasks if not args.tasks or task.name in args.tasks]
    systems: list[System] = [KimiAudioSystem(folder, args.dtype, ANSWER_TOKENS) for folder in args.model]
    systems += [WhisperSystem(folder) for folder in args.whisper]
    predictions = args.output.with_name(f"{args.output.stem}-predictions")
    results = evaluate(tasks, systems, predictions)
    names = [system.name for system in systems]
    if args.written:
        written = chosen(question_task("questions-written", "written questions, right answers", None), args.limit)
        readers: list[System] = [WrittenSystem(args.written), *(system for system in systems if system.instructable)]
        tasks.append(written)
        results |= evaluate([written], readers, predictions)
        names.append(readers[0].name)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2) + "\n")
    print(report.markdown(tasks, names, results))


def chosen(task: Task, limit: int | None) -> Task:
    items = task.items if limit is None else task.items[:: max(1, len(task.items) // limit)][:limit]
    return Task(task.name, task.title, task.unit, items, task.score)


if __name__ == "__main__":
    main()
