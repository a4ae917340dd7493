"""Sounds to listen to and a picture to look at: what the bundled model's voice is like.

    python recipes/tiny/samples.py docs/samples

Writes a few sentences, a question and the model's spoken answer to it as FLAC, and `speech.png`: spectrograms of a
recording of the voice that the model learned from, and of the model saying the same. The same seed gives the same
files.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile

from kimi_audio import KimiAudio
from kimi_audio.audio.decode import load_audio

HERE = Path(__file__).parent
RECORDING = HERE.parents[1] / "examples" / "kathleen.flac"
RECORDED = "There was pride and strength, the ring of triumph in his voice."
SENTENCES = {
    "voice": RECORDED,
    "morning": "Good morning. It is a fine day, and the birds are singing in the old trees.",
    "sums": "Seventy plus twenty is ninety. The capital of France is Paris.",
    "question": "What is the capital of France?",
}
SEED = 1


def picture(sounds: dict[str, np.ndarray], rate: int, path: Path) -> None:
    """Spectrograms, one above the other."""
    figure, axes = plt.subplots(len(sounds), 1, figsize=(9, 5.2), sharex=True, constrained_layout=True)
    for axis, (title, samples_L) in zip(axes, sounds.items(), strict=True):
        axis.specgram(samples_L + 1e-7, NFFT=600, Fs=rate, noverlap=480, cmap="magma", vmin=-110, vmax=-30)
        axis.set(title=title, ylabel="frequency, Hz", ylim=(0, 8000))
    axes[-1].set_xlabel("time, s")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="in place of the bundled one")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = KimiAudio.from_pretrained(args.model, dtype="auto")
    rate, said = model.speech_rate, {}
    for name, text in SENTENCES.items():
        said[name] = np.concatenate(list(model.say(text, seed=SEED)))
        soundfile.write(args.out / f"{name}.flac", said[name], rate)
    question = {"role": "user", "message_type": "audio", "content": str(args.out / "question.flac")}
    reply = model.generate([question], output_type="both", seed=SEED)
    assert reply.audio is not None
    soundfile.write(args.out / "answer.flac", reply.audio, rate)
    print(f"asked {SENTENCES['question']!r}, it wrote {reply.text!r}")
    recording = load_audio(RECORDING, rate)
    picture({"a recording of the voice": recording, "the model": said["voice"]}, rate, args.out / "speech.png")


if __name__ == "__main__":
    main()
