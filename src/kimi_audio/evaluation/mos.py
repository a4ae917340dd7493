"""How good speech sounds, guessed by a network: DNSMOS P.835 (Reddy et al. 2022), 1 to 5.

    predictor = MosPredictor()
    predictor(load_audio("answer.wav"))                 # Mos(overall=3.2, signal=3.5, background=4.0)

The network (MIT) comes with the package `speechmos`, which isn't imported: it needs librosa for another one. It was
trained on noise suppressors: compare its figures with those of real recordings made alike, not with other papers'.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from kimi_audio.audio.blocks import Samples
from kimi_audio.errors import ConfigError

RATE = 16_000
WINDOW = round(9.01 * RATE)
# From the network's outputs to the scale of the listening tests; highest power first.
CURVES = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}


class Mos(NamedTuple):
    """Mean opinion scores: of all, of the voice, of what is heard behind it."""

    overall: float
    signal: float
    background: float


class MosPredictor:
    """The network, ready to score 16 kHz samples."""

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError("a predicted MOS needs two packages: pip install onnxruntime speechmos") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(_released_network(), options, ["CPUExecutionProvider"])

    def __call__(self, samples_L: Samples) -> Mos:
        """The mean over windows of 9 s that begin every second; shorter sounds are repeated until they fill one."""
        assert len(samples_L), "silence of no length has no quality"
        while len(samples_L) < WINDOW:
            samples_L = np.concatenate([samples_L, samples_L])
        starts = range(0, RATE * max(1, len(samples_L) // RATE - 9), RATE)  # one fewer than fit, as published
        clipped_L = np.clip(samples_L, -1, 1).astype(np.float32)
        inputs = [{"input_1": clipped_L[None, start : start + WINDOW]} for start in starts]
        raw_W3 = np.array([self._session.run(None, window)[0] for window in inputs])[:, 0]
        found = {
            name: float(np.polyval(curve, raw_W3[:, column]).mean())
            for column, (name, curve) in enumerate(CURVES.items())
        }
        return Mos(**found)


def _released_network() -> Path:
    package = find_spec("speechmos")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("a predicted MOS needs a network that is not here: pip install speechmos")
    return Path(package.submodule_search_locations[0]) / "dnsmos_models" / "sig_bak_ovr.onnx"
