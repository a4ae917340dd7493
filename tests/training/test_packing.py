import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.training.packing import OneByOneAttention, PackedRow, PaddedAttention, pack, packed_hidden

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


@given(LENGTHS, st.integers(60, 200))
def test_every_document_is_in_one_row_and_no_row_is_too_long(lengths, capacity):
    rows = pack(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= capacity for row in rows)
    assert rows == pack(lengths, capacity)


@given(st.lists(st.integers(30, 250), min_size=200, max_size=200))
def test_rows_are_nearly_full(lengths):
    rows = pack(lengths, 900)
    assert len(rows) <= sum(lengths) / 900 * 1.05 + 1


def test_a_row_has_the_targets_of_its_documents(vocab, make_prompt):
    documents = [make_prompt(2, 3, 0, seed=1), make_prompt(0, 2, 2, seed=2)]
    row = PackedRow.of(documents)
    assert row.lengths == [7, 4]
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3]
    # the first word of the second document has no predecessor, so nothing predicts it
    assert row.text_at.tolist() == [3, 4, 5, 7]
    assert row.text_labels.tolist() == [*documents[0].text_ids[4:], documents[1].text_ids[1]]
    assert row.audio_at.tolist() == [8, 9]
    assert row.audio_labels.tolist() == documents[1].audio_ids[2:]


def test_filling_a_row_changes_no_target_and_no_state(llm, make_prompt):
    documents = [make_prompt(5, 4, 2, 1), make_prompt(0, 9, 3, 2)]
    row, filled = PackedRow.of(documents), PackedRow.of(documents, 50)
    count = sum(row.lengths)
    assert filled.lengths[:2] == row.lengths
    assert sum(filled.lengths) == len(filled.audio_ids) == len(filled.text_ids) == 50
    assert max(filled.lengths) == max(row.lengths)
    for name in ("text_at", "text_labels", "audio_at", "audio_labels"):
        assert torch.equal(getattr(filled, name), getattr(row, name))
    for states_ND, expected in zip(packed_hidden(llm, filled), packed_hidden(llm, row), strict=True):
        torch.testing.assert_close(states_ND[:count], expected, atol=2e-6, rtol=1e-5)


def test_packed_states_equal_those_of_each_document_alone(llm, make_prompt):
    documents = [make_prompt(5, 4, 0, 1), make_prompt(0, 9, 3, 2), make_prompt(1, 1, 1, 3), make_prompt(8, 0, 2, 4)]
    text_ND, audio_ND = packed_hidden(llm, PackedRow.of(documents))
    start = 0
    for document in documents:
        mask = torch.tensor([document.continuous_mask])
        audio_ids, text_ids = torch.tensor([document.audio_ids]), torch.tensor([document.text_ids])
        text_1TD, audio_1TD = llm.hidden(llm.embed(audio_ids, text_ids, mask, document.features or None))
        end = start + len(document)
        torch.testing.assert_close(text_ND[start:end], text_1TD[0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(audio_ND[start:end], audio_1TD[0], atol=2e-6, rtol=1e-5)
        start = end


def test_one_padded_batch_attends_as_documents_one_by_one_do():
    lengths = [7, 1, 12, 3]
    q, k, v = (torch.randn(1, heads, sum(lengths), 8, dtype=torch.float64) for heads in (4, 2, 2))
    expected = OneByOneAttention(lengths)(q, k, v)
    torch.testing.assert_close(PaddedAttention(lengths, torch.device("cpu"))(q, k, v), expected)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_compiled_layers_compute_the_same(llm, make_prompt):
    for documents in ([make_prompt(5, 4, 2, 1), make_prompt(3, 6, 2, 2)], [make_prompt(9, 2, 5, 3)]):
        row = PackedRow.of(documents)
        plain = packed_hidden(llm, row)
        for expected, states_ND in zip(plain, packed_hidden(llm, row, compiled=True), strict=True):
            torch.testing.assert_close(states_ND, expected, atol=1e-5, rtol=1e-4)


def test_nothing_leaks_from_one_document_to_another(llm, make_prompt):
    row = PackedRow.of([make_prompt(5, 4, 2, 1), make_prompt(3, 6, 2, 2), make_prompt(4, 2, 2, 3)])
    first = row.lengths[0]
    changed_ids = row.text_ids.clone()
    changed_ids[:first] = (changed_ids[:first] + 1) % 256
    louder = torch.cat([row.features[0] + 1.0, *row.features[1:]])
    changed = replace(row, text_ids=changed_ids, sounds=louder)
    for before, after in zip(packed_hidden(llm, row), packed_hidden(llm, changed), strict=True):
        assert torch.equal(before[first:], after[first:])
        assert (before[:first] - after[:first]).abs().max() > 0.01


def test_gradients_do_not_leak_either(llm, make_prompt):
    row = PackedRow.of([make_prompt(5, 4, 2, 1), make_prompt(3, 6, 2, 2)])
    assert row.sounds is not None
    row.sounds.requires_grad_()
    text_ND, audio_ND = packed_hidden(llm, row)
    (text_ND[: row.lengths[0]].sum() + audio_ND[: row.lengths[0]].square().sum()).backward()
    first, second = row.sounds.grad.split(row.sound_lengths)
    assert first.abs().max() > 0 and second.abs().max() == 0
