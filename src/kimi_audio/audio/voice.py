"""How likely each 32 ms of a 16 kHz stream holds a voice: the Silero VAD network in plain torch.

    detector = VoiceDetector()
    probability_F = detector(frames_FS)                 # float32 [frames, 512] -> [frames]

The weights (MIT) come with the `silero-vad` package. It isn't imported, because that sets torch's thread count; here
many frames pass through the convolutions at once and only the LSTM walks, which takes about 0.3 % of real time.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

FRAME = 512  # samples, 32 ms at 16 kHz
CONTEXT = 64  # samples of the frame before that each frame is shown with


class SileroNetwork(nn.Module):
    """Four spectra a frame → convolutions → LSTM → probability. Parameter names are those of the released file."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, kernel_size=256, stride=128, bias=False)  # 129 cosines, then 129 sines
        self.conv1 = nn.Conv1d(129, 128, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, kernel_size=3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, kernel_size=3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, kernel_size=3, padding=1)
        self.lstm_cell = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, kernel_size=1)

    def forward(self, x_FS: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """[frames, CONTEXT + FRAME] samples and the LSTM's state -> [frames] probabilities and the new state."""
        x_F1S = F.pad(x_FS[:, None], (0, 64), mode="reflect")
        cosine, sine = self.stft_conv(x_F1S).chunk(2, dim=1)
        x_FCT = torch.sqrt(cosine**2 + sine**2)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x_FCT = F.relu(conv(x_FCT))
        x_FC, new_state = self.lstm_cell(x_FCT.squeeze(2), state)
        return torch.sigmoid(self.final_conv(F.relu(x_FC)[:, :, None])).flatten(), new_state


@lru_cache(maxsize=1)
def released_network() -> SileroNetwork:
    """The network with its released weights; it holds no stream's state, so that all detectors share it."""
    package = find_spec("silero_vad")
    assert package is not None and package.submodule_search_locations, "silero-vad is a dependency of this package"
    weights = load_file(Path(package.submodule_search_locations[0]) / "data" / "silero_vad_16k.safetensors")
    # A cell and a one-layer LSTM hold the same tensors under slightly different names.
    suffixed = {f"{name}_l0" if name.startswith("lstm_cell.") else name: value for name, value in weights.items()}
    network = SileroNetwork().eval()
    network.load_state_dict(suffixed)
    return network


class VoiceDetector:
    """The network and what is remembered of one stream: the LSTM's state and the end of the last frame."""

    def __init__(self) -> None:
        self.network = released_network()
        self.reset()

    def reset(self) -> None:
        """Forget the stream so far."""
        self._state: tuple[Tensor, Tensor] | None = None
        self._context = torch.zeros(CONTEXT)

    @torch.inference_mode()
    def __call__(self, frames_FS: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Voice probabilities [frames] of the next samples [frames, FRAME] of the stream."""
        frames = torch.from_numpy(np.ascontiguousarray(frames_FS))
        tails = torch.cat([self._context[None], frames[:, -CONTEXT:]])
        probability_F, self._state = self.network(torch.cat([tails[:-1], frames], dim=1), self._state)
        self._context = tails[-1].clone()
        return probability_F.numpy()
