"""Codes to sound, chunk by chunk, as they are made (SPEC §7).

    stream = Detokenizer(flow, vocoder).stream()
    for codes in pieces:
        play(stream.push(codes))                            # float32 (L,), 24 kHz; may be empty
    play(stream.flush())                                    # what is left; the stream is as new afterwards

A chunk is generated together with the first codes of the next one (look-ahead), which are then thrown away and
generated again with their own chunk. Its finished frames are run through the flow once more to be remembered, the
newest `remembered_frames` of them. Neighbouring chunks are joined by a `Stitcher`.

Whatever holds state has `reset`, `push` and `flush`. `MelStream` and `Stitcher` take whole chunks, and the last one in
`flush`, because it is made in another way; `SpeechStream` takes any pieces, and keeps a chunk back until it knows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from kimi_audio.detokenizer.flow import CACHE_TIME, FlowTransformer, Schedule, euler, solve, velocity, whole_time
from kimi_audio.detokenizer.vocoder import BigVGAN
from kimi_audio.errors import ConfigError
from kimi_audio.kv_cache import KVCache

FRAMES_PER_CODE = 4
STEPS = 29

Noise = Callable[[int, int], Tensor]
"""(frames, mel bins) → standard normal numbers, float32."""


Stitching = Literal["overlap", "official"]


@dataclass(frozen=True)
class StreamConfig:
    """How speech is cut up, and with how much care it is made. `benchmarks/speech.py` prints what each choice costs.

    Attributes:
        chunk_codes: codes of a chunk; 30 are 2.4 s.
        first_chunk_codes: codes of the first chunk, fewer for an earlier first sound; None: like the others.
        look_ahead_codes: codes that a chunk sees of the next one.
        remembered_frames: how far back a chunk sees, in mel frames of 20 ms.
        positions: when two more chunks might not fit below this position, all is forgotten.
        schedule: the solver's steps.
        sway: how `with_steps` spreads them (`euler`); it changes nothing by itself.
        guidance: weight of classifier-free guidance, 0 for none; it doubles the flow's work, and needs one that was
            trained with codes dropped.
        guidance_from: time, 0 to 1, before which the solver's steps do without guidance.
        stitching: how sounds of neighbouring chunks are joined: `overlap` runs the vocoder over `context_frames` on
            both sides of what it keeps; `official` fades from one version of half a chunk to the next (`Fade`).
        context_frames: mel frames of 20 ms; what the vocoder sees at most is its `receptive_frames`.
    """

    chunk_codes: int = 30
    first_chunk_codes: int | None = None
    look_ahead_codes: int = 12
    remembered_frames: int = 900
    positions: int = 4096
    schedule: Schedule = field(default_factory=lambda: euler(STEPS))
    sway: float = 0.0
    guidance: float = 0.0
    guidance_from: float = 0.0
    stitching: Stitching = "overlap"
    context_frames: int = 12

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "StreamConfig":
        """From the mapping `speech` of a `generation_config.json`, in which `steps` stands for the schedule.

        Raises:
            ConfigError: when a value is out of range.
            TypeError: naming a field that is unknown.
        """
        rest = {name: value for name, value in config.items() if name != "steps"}
        return cls(**rest).with_steps(config.get("steps", STEPS))

    def with_steps(self, steps: int) -> "StreamConfig":
        """The same with so many solver steps, spread alike."""
        return replace(self, schedule=euler(steps, self.sway))

    def __post_init__(self) -> None:
        shortest = min(self.chunk_codes, self.first_chunk_codes or self.chunk_codes)
        if not 0 <= self.look_ahead_codes < shortest:
            raise ConfigError(f"look_ahead_codes is {self.look_ahead_codes}; 0 to {shortest - 1} are possible")
        if not self.schedule:
            raise ConfigError("the solver needs at least one step")
        if self.guidance < 0 or self.context_frames < 0:
            raise ConfigError("guidance and context_frames can't be below 0")
        if not 0 <= self.guidance_from <= 1:
            raise ConfigError(f"guidance_from is {self.guidance_from}; 0 to 1 are possible")
        if not -1 <= self.sway <= 1:
            raise ConfigError(f"sway is {self.sway}; -1 to 1 are possible")


class MelStream:
    """Chunks of codes to mels; remembers the frames that were made, and the codes that were only looked at."""

    def __init__(self, flow: FlowTransformer, config: StreamConfig, noise: Noise = torch.randn) -> None:
        self.flow, self.config, self.noise = flow, config, noise
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._looked_at: list[int] = []
        self._finished: tuple[Tensor, list[int]] | None = None  # remembered when more follows: sound comes first
        self._forget()

    def _forget(self) -> None:
        self._cache: KVCache | None = None  # made when it is needed: a stream that waits holds no memory
        self._start = 0

    def push(self, chunk: Sequence[int]) -> Tensor:
        """Mels (T, M) float32 of the codes last looked at and of this chunk, less the new look-ahead."""
        codes = [*self._looked_at, *chunk]
        kept = max(0, len(codes) - self.config.look_ahead_codes)
        mel_1TM = self._solve(codes)[:, : FRAMES_PER_CODE * kept]
        self._finished = mel_1TM, codes[:kept]
        self._looked_at = codes[kept:]
        return self._denormalised(mel_1TM)

    def flush(self, chunk: Sequence[int]) -> Tensor:
        """Mels (T, M) of the last chunk, to its end; the stream is then as new."""
        mel_1TM = self._solve([*self._looked_at, *chunk])
        self.reset()
        return self._denormalised(mel_1TM)

    def _solve(self, codes: Sequence[int]) -> Tensor:
        """Normalised mels (1, T, M) that follow the remembered frames."""
        if self._finished is not None:
            self._remember(*self._finished)
            self._finished = None
        flow, device = self.flow, self.flow.input_linear.weight.device
        if self._cache is None:
            self._cache = flow.new_cache(2 if self.config.guidance else 1)
        noise_1TM = self.noise(FRAMES_PER_CODE * len(codes), flow.config.input_size)[None].to(device)
        return solve(flow, noise_1TM, torch.tensor([codes], device=device), self.config.schedule, start=self._start,
                     cache=self._cache, guidance=self.config.guidance,
                     guidance_from=self.config.guidance_from)  # fmt: skip

    @torch.inference_mode()
    def _remember(self, mel_1TM: Tensor, codes: Sequence[int]) -> None:
        """Keep keys and values of finished frames; without look-ahead, officially those of the last solver step."""
        assert self._cache is not None
        if self.config.look_ahead_codes:
            time_1 = whole_time(torch.tensor(CACHE_TIME), 1).to(mel_1TM.device)
            codes_1N = torch.tensor([codes], device=mel_1TM.device)
            velocity(self.flow, mel_1TM, codes_1N, time_1, self._start, self._cache, self.config.guidance)
        frames = mel_1TM.shape[1]
        self._cache.advance(frames)
        self._cache.keep_last(self.config.remembered_frames)
        self._start += frames
        if self._start + 2 * frames > self.config.positions:
            self._forget()

    def _denormalised(self, mel_1TM: Tensor) -> Tensor:
        return mel_1TM[0] * self.flow.config.mel_std + self.flow.config.mel_mean


class Stitcher(Protocol):
    """Mels of chunks to one sound."""

    def reset(self) -> None:
        """Forget everything."""
        ...

    def push(self, mel_TM: Tensor) -> Tensor:
        """Samples (L,) float32 that this chunk makes certain."""
        ...

    def flush(self, mel_TM: Tensor) -> Tensor:
        """Samples (L,) float32 to the end of the last chunk; the stitcher is then as new."""
        ...


class Overlap:
    """The vocoder runs over each chunk with `context` frames before and after it, and only the chunk is kept.

    With at least `vocoder.receptive_frames` of context the sound is that of the whole mel at once.
    """

    def __init__(self, vocoder: BigVGAN, context: int) -> None:
        self.vocoder, self.context = vocoder, context
        self.reset()

    def reset(self) -> None:
        self._mel_TM: Tensor | None = None
        self._done = 0  # frames at the start of the mel that were heard already

    def push(self, mel_TM: Tensor) -> Tensor:
        return self._heard(mel_TM, self.context)

    def flush(self, mel_TM: Tensor) -> Tensor:
        samples_L = self._heard(mel_TM, 0)
        self.reset()
        return samples_L

    @torch.inference_mode()
    def _heard(self, mel_TM: Tensor, waiting: int) -> Tensor:
        """The sound of all frames but the last `waiting`, from where it stopped before."""
        mel_TM = mel_TM if self._mel_TM is None else torch.cat([self._mel_TM, mel_TM])
        certain = mel_TM.shape[0] - waiting
        samples_L = torch.zeros(0)
        if certain > self._done:
            hop = self.vocoder.config.hop_size
            samples_L = self.vocoder(mel_TM[None])[0, self._done * hop : certain * hop].float()
            dropped = max(0, certain - self.context)
            mel_TM, self._done = mel_TM[dropped:], certain - dropped
        self._mel_TM = mel_TM
        return samples_L


class Fade:
    """As the official code joins them.

    Half of each chunk waits for the next one: it is made again together with it, and the two versions are cross-faded.
    Quirks, reproduced: the fade is a Hamming window, whose ends are 0.08, and the last chunk is not faded in.
    """

    def __init__(self, vocoder: BigVGAN) -> None:
        self.vocoder = vocoder
        self.reset()

    def reset(self) -> None:
        self._mel_TM: Tensor | None = None
        self._samples_L = torch.zeros(0)

    @torch.inference_mode()
    def push(self, mel_TM: Tensor) -> Tensor:
        made_L = self._made(mel_TM)
        if self._mel_TM is None:
            done = made_L.shape[0] // 2
        else:
            done = 2 * self._samples_L.shape[0]
            if made_L.shape[0] <= done:
                done = made_L.shape[0] // 2
            half = done // 2
            window = torch.hamming_window(done, device=made_L.device)
            made_L[:half] = self._samples_L[:half] * window[-half:] + made_L[:half] * window[:half]
        self._samples_L = made_L[done:]
        self._mel_TM = mel_TM[-(self._samples_L.shape[0] // self.vocoder.config.hop_size) :]
        return made_L[:done]

    def flush(self, mel_TM: Tensor) -> Tensor:
        samples_L = self._made(mel_TM)
        self.reset()
        return samples_L

    @torch.inference_mode()
    def _made(self, mel_TM: Tensor) -> Tensor:
        """The sound of the mels that wait and of these."""
        mel_TM = mel_TM if self._mel_TM is None else torch.cat([self._mel_TM, mel_TM])
        return self.vocoder(mel_TM[None])[0].float()


class SpeechStream:
    """One speaker's mouth: codes in, samples out. Many can share a `Detokenizer`."""

    def __init__(self, mels: MelStream, stitcher: Stitcher) -> None:
        self._mels, self._stitcher, self._config = mels, stitcher, mels.config
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._codes: list[int] = []
        self._chunk_codes = self._config.first_chunk_codes or self._config.chunk_codes
        self._mels.reset()
        self._stitcher.reset()

    def push(self, piece: Sequence[int]) -> Tensor:
        """Samples (L,) float32 that these codes make certain; a full chunk waits until a code follows it."""
        self._codes += piece
        parts = [torch.zeros(0)]
        while len(self._codes) > self._chunk_codes:
            chunk, self._codes = self._codes[: self._chunk_codes], self._codes[self._chunk_codes :]
            self._chunk_codes = self._config.chunk_codes
            parts.append(self._stitcher.push(self._mels.push(chunk)).cpu())
        return torch.cat(parts)

    def flush(self) -> Tensor:
        """The rest; without any code, silence of length 0."""
        if not self._codes:
            return torch.zeros(0)
        samples_L = self._stitcher.flush(self._mels.flush(self._codes))
        self.reset()
        return samples_L.cpu()


@dataclass(frozen=True)
class Detokenizer:
    """Flow and vocoder. `detokenizer(codes)` is the whole sound at once: the stream, joined."""

    flow: FlowTransformer
    vocoder: BigVGAN
    config: StreamConfig = StreamConfig()

    @property
    def sample_rate(self) -> int:
        """Officially 24000."""
        return self.vocoder.config.sampling_rate

    def stream(self, noise: Noise = torch.randn, config: StreamConfig | None = None) -> SpeechStream:
        """A new stream; `noise` decides the chance in it, `config` stands in for the detokenizer's own."""
        config = config or self.config
        is_official = config.stitching == "official"
        stitcher = Fade(self.vocoder) if is_official else Overlap(self.vocoder, config.context_frames)
        return SpeechStream(MelStream(self.flow, config, noise), stitcher)

    def __call__(self, codes: Sequence[int], noise: Noise = torch.randn, config: StreamConfig | None = None) -> Tensor:
        """Samples (L,), 24 kHz float32."""
        stream = self.stream(noise, config)
        return torch.cat([stream.push(codes), stream.flush()])
