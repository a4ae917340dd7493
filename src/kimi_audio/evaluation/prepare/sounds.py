"""Sounds and scenes to be told apart: VocalSound, Nonspeech7k, TUT2017, CochlScene.

VocalSound (https://github.com/YuanGongND/vocalsound): datafiles/te.json beside audio_16k or audio_44k.

Nonspeech7k (https://zenodo.org/records/6967442): `metadata of test set.csv` beside the folder test.

TUT Acoustic Scenes 2017, evaluation (https://zenodo.org/records/1040168): meta.txt (path, tab, scene) beside audio.

CochlScene (https://zenodo.org/records/7080122): Test/Bus/Bus_user0009_14897252_005.wav, Val likewise; the folder is
the scene.

Every row has the `choices` that the question of the benchmark lists.
"""

from __future__ import annotations

import re
from pathlib import Path

from kimi_audio.evaluation.prepare.common import Manifest, find, keyed_lines, locate, progress, read_csv, read_items

VOCAL_SOUNDS = {
    "/m/01j3sz": "Laughter",
    "/m/07plz5l": "Sigh",
    "/m/01b_21": "Cough",
    "/m/0dl9sf8": "Throat clearing",
    "/m/01hsr_": "Sneeze",
    "/m/07ppn3j": "Sniff",
}
NONSPEECH = ("Breath", "Cough", "Cry", "Laugh", "Scream", "Sneeze", "Yawn")
TUT_SCENES = (
    "beach", "bus", "cafe or restaurant", "car", "city center", "forest path", "grocery store", "home", "library",
    "metro station", "office", "park", "residential area", "train", "tram",
)  # fmt: skip
COCHL_SCENES = (
    "bus", "cafe", "car", "crowded indoor", "elevator", "kitchen", "park", "residential area", "restaurant",
    "restroom", "street", "subway", "subway station",
)  # fmt: skip


def vocalsound(download: Path, manifest: Manifest) -> None:
    table = locate(download, "datafiles/te.json")
    folder = locate(table.parents[1], "audio_16k", "audio_44k")
    for item in progress(read_items(table, "data"), "VocalSound"):
        name = Path(str(item.get("wav", ""))).name  # the path before it is that of the authors' machine
        label = VOCAL_SOUNDS.get(item.get("labels", ""))
        manifest.add(Path(name).stem, folder / name, label=label, choices=[*VOCAL_SOUNDS.values()])


def nonspeech7k(download: Path, manifest: Manifest) -> None:
    table = locate(download, "metadata of test set.csv", "metadata_test.csv")
    folder = locate(table.parent, "test")
    for number, row in enumerate(progress(read_csv(table), "Nonspeech7k"), start=2):
        name, label = row.get("Filename", ""), row.get("Classname", "").lower()
        # "breath" or "breathing", "sneeze" or "sneezing": three letters tell the seven classes apart
        right = next((choice for choice in NONSPEECH if label.startswith(choice[:3].lower())), None)
        manifest.add(Path(name).stem or f"{table}:{number}", folder / name, label=right, choices=[*NONSPEECH])


def tut2017(download: Path, manifest: Manifest) -> None:
    table = locate(download, "TUT-acoustic-scenes-2017-evaluation/meta.txt", "meta.txt")
    for path, rest in progress([*keyed_lines(table)], "TUT2017"):
        label = rest.split("\t")[0].replace("_", " ").replace("/", " or ")
        right = label if label in TUT_SCENES else None
        manifest.add(Path(path).stem, table.parent / path, label=right, choices=[*TUT_SCENES])


def cochlscene(download: Path, manifest: Manifest) -> None:
    folders = {"test": locate(download, "Test"), "dev": find(download, "Val")}
    for split, folder in folders.items():
        for path in progress(sorted(folder.glob("*/*.wav")) if folder else [], f"CochlScene {split}"):
            label = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path.parent.name).lower()
            right = label if label in COCHL_SCENES else None
            manifest.add(path.stem, path, label=right, choices=[*COCHL_SCENES], split=split)
