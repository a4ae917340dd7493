from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.training.length_batches import length_batches


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(50, 200), st.integers(0, 30))
def test_every_item_once_an_epoch_within_the_budget_and_repeatable(lengths, budget, start):
    numbered = list(islice(length_batches(lengths, budget, seed=1), 60))
    batches = [batch for _, batch in numbered]
    assert all(max(lengths[i] for i in batch) * len(batch) <= budget for batch in batches)
    seen = []
    for batch in batches:
        seen += batch
        if len(seen) == len(lengths):
            assert sorted(seen) == list(range(len(lengths)))
            break
    else:
        assert len(seen) < len(lengths)
    assert list(islice(length_batches(lengths, budget, seed=1, start=start), 5)) == numbered[start : start + 5]
    every_7th = length_batches(lengths, budget, seed=1, start=start, stride=7)
    assert list(islice(every_7th, 4)) == numbered[start : start + 28 : 7]
