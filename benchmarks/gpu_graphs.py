"""Modules of the product on tensors that stay in place, captured once as CUDA graphs and replayed; for `gpu.py`.

    decoder = GraphedDecoder(llm, blank, capacity=512)
    ids = decoder.start(prompt)
    ids = decoder.step()
"""

from collections.abc import Callable

import torch
from torch import Tensor

from kimi_audio.detokenizer.flow import CACHE_TIME, FlowTransformer, solve, velocity, whole_time
from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE, StreamConfig
from kimi_audio.detokenizer.vocoder import BigVGAN
from kimi_audio.kv_cache import KVCache
from kimi_audio.llm.model import AudioLLM, LLMOutput
from kimi_audio.prompt import Prompt
from kimi_audio.vocab import AUDIO_DELAY


def captured(work: Callable[[], Tensor | None]) -> Callable[[], Tensor | None]:
    """The same work as a CUDA graph; what it returns is overwritten by the next call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # what is allocated, chosen or remembered on first use can't be captured
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Tensor | None:
        graph.replay()
        return result

    return replay


class StaticCache(KVCache):
    """A cache of fixed size for steps of one position, whose place is a tensor: it always returns all positions."""

    def __init__(self, llm: AudioLLM, capacity: int) -> None:
        like = llm.new_cache(capacity=capacity)
        self.length, self._k, self._v = 0, torch.zeros_like(like._k), torch.zeros_like(like._v)
        self.position_1 = torch.zeros(1, dtype=torch.int64, device=self._k.device)

    def take(self, other: KVCache) -> None:
        """Begin with what is in another cache."""
        for layer in range(len(self._k)):
            self._k[layer, :, :, : other.length], self._v[layer, :, :, : other.length] = other.layer(layer)
        self.position_1.fill_(other.length)

    def write(self, layer: int, k_BHTd: Tensor, v_BHTd: Tensor) -> tuple[Tensor, Tensor]:
        self._k[layer].index_copy_(2, self.position_1, k_BHTd)
        self._v[layer].index_copy_(2, self.position_1, v_BHTd)
        return self._k[layer], self._v[layer]

    def advance(self, positions: int) -> None:
        self.position_1 += positions


class GraphedDecoder:
    """Greedy decoding of both streams of one prompt: `start`, then `step` after `step`, each returns what it wrote."""

    def __init__(self, llm: AudioLLM, blank: int, capacity: int) -> None:
        self.llm, self.blank, self.cache = llm, blank, StaticCache(llm, capacity)
        self.slots_S = torch.arange(capacity, device=self.cache.position_1.device)
        self.ids_211 = torch.zeros(2, 1, 1, dtype=torch.int64, device=self.slots_S.device)
        self.written = 0
        self._replay = captured(self._step)

    def start(self, prompt: Prompt) -> list[int]:
        device, cache = self.slots_S.device, self.llm.new_cache(capacity=len(prompt))
        text_ids_1T, audio_ids_1T, mask_1T = (
            torch.tensor([ids], device=device) for ids in (prompt.text_ids, prompt.audio_ids, prompt.continuous_mask)
        )
        self._choose(self.llm(audio_ids_1T, text_ids_1T, continuous_mask_BT=mask_1T, features=prompt.features,
                              cache=cache, last_only=True))  # fmt: skip
        self.cache.take(cache)
        self.written = 0
        return self._ids()

    def step(self) -> list[int]:
        self._replay()
        return self._ids()

    def _step(self) -> None:
        position_11, (text_ids_11, audio_ids_11) = self.cache.position_1[None], self.ids_211
        mask_111S = (self.slots_S <= position_11)[None, None]
        self._choose(self.llm(audio_ids_11, text_ids_11, position_ids_BT=position_11, attention_mask=mask_111S,
                              cache=self.cache))  # fmt: skip

    def _choose(self, output: LLMOutput) -> None:
        text_11V, audio_11V = output
        assert text_11V is not None and audio_11V is not None
        self.ids_211.copy_(torch.stack([text_11V.argmax(-1), audio_11V.argmax(-1)]))

    def _ids(self) -> list[int]:
        """Text id and audio id; the audio stream begins late."""
        if self.written < AUDIO_DELAY:
            self.ids_211[1].fill_(self.blank)
        self.written += 1
        return self.ids_211.flatten().tolist()


class GraphedChunk:
    """A chunk to sound as `MelStream` and `Overlap` make it, flow and vocoder a graph each.

    It is the first chunk of an utterance, or one with a full memory behind it.
    """

    def __init__(self, flow: FlowTransformer, vocoder: BigVGAN, config: StreamConfig, is_first: bool = False) -> None:
        device, bins = flow.input_linear.weight.device, flow.config.input_size
        self.flow, self.vocoder = flow, vocoder
        if is_first:
            self.count, past, self.before = config.first_chunk_codes or config.chunk_codes, 0, 0
        else:
            self.count, past = config.chunk_codes + config.look_ahead_codes, config.remembered_frames
            self.before = 2 * config.context_frames
        self.kept, self.context = self.count - config.look_ahead_codes, config.context_frames
        self.cache = filled_cache(flow, past, FRAMES_PER_CODE * self.count)
        self.schedule = [(moment.to(device), width.to(device)) for moment, width in config.schedule]
        self.time_1 = whole_time(torch.tensor(CACHE_TIME, device=device), 1)
        self.codes_1N = torch.zeros(1, self.count, dtype=torch.int64, device=device)
        self.noise_1TM = torch.zeros(1, FRAMES_PER_CODE * self.count, bins, device=device)
        self.mel_1TM = torch.zeros(1, self.before + FRAMES_PER_CODE * self.kept, bins, device=device)
        self.solve, self.vocode = captured(self.make_mel), captured(self.make_sound)

    def __call__(self, codes: list[int]) -> Tensor:
        """Samples (L,) in main memory."""
        self.codes_1N.copy_(torch.tensor([codes]))
        self.noise_1TM.normal_()
        self.solve()
        samples_L = self.vocode()
        assert samples_L is not None
        return samples_L.cpu()

    def make_mel(self) -> None:
        """Replace the mel by its end and what the flow makes of the codes; write the cache, but don't advance it."""
        past, config = self.cache.length, self.flow.config
        made_1TM = solve(self.flow, self.noise_1TM, self.codes_1N, self.schedule, start=past, cache=self.cache)
        made_1TM = made_1TM[:, : FRAMES_PER_CODE * self.kept]
        velocity(self.flow, made_1TM, self.codes_1N[:, : self.kept], self.time_1, past, self.cache)
        end_1TM = self.mel_1TM[:, self.mel_1TM.shape[1] - self.before :]
        self.mel_1TM.copy_(torch.cat([end_1TM, made_1TM * config.mel_std + config.mel_mean], 1))

    def make_sound(self) -> Tensor:
        hop = self.vocoder.config.hop_size
        return self.vocoder(self.mel_1TM)[0, self.before // 2 * hop : -self.context * hop].float()


def filled_cache(flow: FlowTransformer, past: int, more: int) -> KVCache:
    """A cache with `past` random frames in it and room for `more`."""
    cache, config = flow.new_cache(capacity=past + more), flow.config
    like = flow.input_linear.weight.new_empty(1, config.num_heads, past, config.hidden_size // config.num_heads)
    for layer in range(config.depth):
        cache.write(layer, torch.randn_like(like), torch.randn_like(like))
    cache.advance(past)
    return cache
