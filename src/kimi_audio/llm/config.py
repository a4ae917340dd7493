"""The configuration of the audio language model: the official `config.json` as a dataclass (SPEC §3)."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from kimi_audio.errors import ConfigError


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's way to longer texts: what turns slowly turns `factor` times as slowly.

    Attributes:
        low_freq_factor, high_freq_factor: what turns less often than the former within
            `original_max_position_embeddings` positions is slow, more often than the latter as it was; between, a mix.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int
    rope_type: str = "llama3"

    @classmethod
    def from_dict(cls, scaling: dict[str, Any]) -> "RopeScaling | None":
        """From the `rope_scaling` of a `config.json`, None where nothing is scaled; ConfigError for other ways."""
        if not isinstance(scaling, dict):
            raise ConfigError(f"rope_scaling is {scaling!r}; a mapping is expected")
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind == "default":
            return None
        if kind != cls.rope_type:
            raise ConfigError(f"rope_scaling of type {kind!r} is not supported; 'llama3' is")
        names = [field.name for field in fields(cls) if field.name != "rope_type"]
        if wrong := [name for name in names if type(scaling.get(name)) not in (int, float)]:
            raise ConfigError(f"rope_scaling: {wrong[0]} is {scaling.get(wrong[0])!r}; a number is expected")
        return cls(**{name: scaling[name] for name in names})

    def __post_init__(self) -> None:
        if not (self.factor > 0 and 0 < self.low_freq_factor < self.high_freq_factor):
            raise ConfigError("rope_scaling: factor above 0 and 0 < low_freq_factor < high_freq_factor are needed")


@dataclass(frozen=True)
class KimiAudioConfig:
    """Sizes, id space and branch layout. Field names are the official ones; `extra` keeps what we do not read.

    Ours alone is `kimia_mimo_output_first`: the first id that the audio head can write; all ids below it are text.

    Raises:
        ConfigError: for sizes that contradict each other.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    kimia_token_offset: int
    kimia_mimo_layers: int
    kimia_mimo_transformer_from_layer_index: int
    kimia_adaptor_input_dim: int
    kimia_media_begin: int
    kimia_media_end: int
    num_base_tokens: int = 151643
    kimia_audio_output_vocab: int = 16448
    kimia_text_output_vocab: int = 152064
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    rope_scaling: RopeScaling | None = None
    max_position_embeddings: int = 8192
    use_whisper_feature: bool = True
    tie_word_embeddings: bool = False
    kimia_mimo_output_first: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def need(fits: bool, name: str, accepted: str) -> None:
            if not fits:
                raise ConfigError(f"{name} is {getattr(self, name)}; {accepted}")

        heads, layers, branch = self.num_attention_heads, self.num_hidden_layers, self.kimia_mimo_layers
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            need(getattr(self, name) > 0, name, "at least 1 is needed")
        need(self.hidden_size % (2 * heads) == 0, "hidden_size", f"an even number for each of {heads} heads is needed")
        fits = self.num_key_value_heads > 0 and heads % self.num_key_value_heads == 0
        need(fits, "num_key_value_heads", f"a divisor of the {heads} heads is needed")
        need(self.kimia_adaptor_input_dim >= 0, "kimia_adaptor_input_dim", "0 or more is needed")
        need(0 <= self.kimia_mimo_output_first <= self.vocab_size, "kimia_mimo_output_first", "it must be an id")
        need(branch >= 0, "kimia_mimo_layers", "0 or more is needed")
        fork = self.kimia_mimo_transformer_from_layer_index
        fits = not branch or 0 <= fork < layers
        need(fits, "kimia_mimo_transformer_from_layer_index", f"the layers are 0 to {layers - 1}")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "KimiAudioConfig":
        """Read a `config.json` dictionary.

        Raises:
            KeyError: with the name of a required field that is missing.
            ConfigError: for sizes that contradict each other.
        """
        names = {f.name for f in fields(cls)} - {"extra"}
        known = {name: config[name] for name in names if name in config}
        for name in cls.required_fields():
            if name not in config:
                raise KeyError(name)
        if known.get("rope_scaling") is not None:
            known["rope_scaling"] = RopeScaling.from_dict(known["rope_scaling"])
        return cls(**known, extra={name: value for name, value in config.items() if name not in names})

    @classmethod
    def required_fields(cls) -> tuple[str, ...]:
        """Fields that every `config.json` must have."""
        return ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "kimia_token_offset", "kimia_mimo_layers",
                "kimia_mimo_transformer_from_layer_index", "kimia_adaptor_input_dim",
                "kimia_media_begin", "kimia_media_end")  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` content; `from_dict` reads it back identically."""
        own = asdict(self)
        return {**own.pop("extra"), **own}

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads
