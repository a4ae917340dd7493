"""A small model starts as its source LLM: the same text logits, in the official layout."""

import pytest
import torch

from kimi_audio.checkpoint.layout import load_parts, save_parts
from kimi_audio.checkpoint.small import add_audio_branch, build_small
from kimi_audio.vocab import Vocabulary

TEXTS = ["the cat sat on the mat", "user and assistant say hello", "where is the cat"] * 5


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """HF folders of a random Llama with a byte-level BPE, and of a random Whisper."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    torch.manual_seed(0)
    llm, whisper = tmp_path_factory.mktemp("llm"), tmp_path_factory.mktemp("whisper")
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator([*TEXTS, "something else altogether"], 400, special_tokens=["<|im_start|>", "<|im_end|>"])
    bpe.save(str(llm / "tokenizer.json"))
    config = transformers.LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    source = transformers.LlamaForCausalLM(config).eval()
    source.save_pretrained(llm)
    encoder = transformers.WhisperConfig(
        vocab_size=64, num_mel_bins=80, encoder_layers=2, encoder_attention_heads=2, decoder_layers=1, d_model=16,
        decoder_attention_heads=2, decoder_ffn_dim=32, encoder_ffn_dim=32, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, suppress_tokens=[],
    )  # fmt: skip
    transformers.WhisperForConditionalGeneration(encoder).save_pretrained(whisper)
    return llm, whisper, source


@pytest.mark.parametrize("mimo_layers", [0, 2])
def test_written_text_is_read_as_the_source_reads_it(sources, tmp_path, mimo_layers):
    llm_folder, whisper_folder, source = sources
    sizes = build_small(
        llm_folder, whisper_folder, tmp_path / "m", vocab_size=290, texts=TEXTS, audio_codes=20, mimo_layers=mimo_layers
    )
    assert sizes == {"bpe": 290, "special": 64, "audio": 20, "rows": 384}
    parts = load_parts(tmp_path / "m")
    vocab = Vocabulary.from_config(parts.llm.config.to_dict())
    assert (vocab.num_base_tokens, vocab.token_offset) == (290, 354)
    assert parts.llm.config.kimia_mimo_layers == mimo_layers
    assert parts.acoustic is not None and parts.acoustic.clip_silence

    ids = parts.tokenizer.encode("where is the cat")
    source_ids = source_vocabulary_ids(llm_folder, "where is the cat")
    assert len(ids) == len(source_ids)
    with torch.no_grad():
        blanks = torch.full((1, len(ids)), vocab.text_blank)
        ours = parts.llm(blanks, torch.tensor([ids])).text_logits
        theirs = source(torch.tensor([source_ids])).logits
    torch.testing.assert_close(ours[0][:, ids], theirs[0][:, source_ids], atol=1e-4, rtol=0)


def source_vocabulary_ids(folder, text):
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


def test_special_rows(sources, tmp_path):
    llm_folder, whisper_folder, source = sources
    for folder in ("a", "b"):
        build_small(llm_folder, whisper_folder, tmp_path / folder, vocab_size=290, texts=TEXTS, audio_codes=20)
    first, second = (load_parts(tmp_path / folder).llm.model.embed_tokens.weight for folder in ("a", "b"))
    assert torch.equal(first, second), "the new rows come from a fixed seed"
    rows = source.model.embed_tokens.weight.detach()
    vocab = Vocabulary(290, 64, 20)
    assert torch.equal(first[vocab.text_blank], torch.zeros(32))
    assert torch.equal(first[vocab.msg_end], rows[1])
    assert torch.equal(first[vocab.text_eos], rows[1])
    newline = source_vocabulary_ids(llm_folder, "\n")
    assert torch.equal(first[vocab.kimia_assistant_msg_start], rows[newline[0]])
    assert (first[vocab.token_offset :] - rows.mean(0)).std() < 0.03


def test_an_audio_branch_is_added_without_a_change_to_the_text(sources, tmp_path):
    llm, whisper, _ = sources
    build_small(llm, whisper, tmp_path / "listens", vocab_size=290, texts=TEXTS)
    parts = load_parts(tmp_path / "listens")
    listens = parts.llm
    speaks = parts.llm = add_audio_branch(listens, layers=2, after=1)
    ids = torch.tensor([[3, 7, 9]])
    with torch.inference_mode():
        before, after = listens(ids, ids), speaks(ids, ids)
    assert torch.equal(before.text_logits, after.text_logits) and before.audio_logits is None
    assert after.audio_logits is not None and after.audio_logits.shape == after.text_logits.shape
    # The trunk's own way on is copied, and nothing below the first special id can be written.
    assert torch.equal(speaks.model.mimo_layers[0].mlp.up_proj.weight, speaks.model.layers[2].mlp.up_proj.weight)
    assert after.audio_logits[..., :290].isneginf().all() and after.audio_logits[..., 290:].isfinite().all()
    save_parts(tmp_path / "speaks", parts)
    again = load_parts(tmp_path / "speaks").llm
    assert torch.equal(again(ids, ids).audio_logits, after.audio_logits)
