"""Log-probs and entropies of all tokens at once are verl's."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4rl_plugin.cpu.token_probabilities import log_probs_and_entropies

VOCABULARY = 7


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 9))
def test_the_same_as_verl_computes_token_by_token(lengths: list[int], seed: int) -> None:
    from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits

    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(VOCABULARY, (length,), generator=generator) for length in lengths]
    ids = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    logits = torch.randn(len(rows), max(lengths), VOCABULARY, generator=generator, requires_grad=True)
    labels = torch.roll(ids.values(), shifts=-1, dims=0)
    tokens = torch.cat([row[:length] for row, length in zip(logits, lengths, strict=True)])
    expected = logprobs_from_logits(tokens, labels), entropy_from_logits(tokens)
    found = log_probs_and_entropies(logits, ids, labels)
    weights = torch.rand(len(tokens), generator=generator)
    for ours, verls in zip(found, expected, strict=True):
        assert torch.equal(ours.offsets(), ids.offsets())
        torch.testing.assert_close(ours.values(), verls)
        (ours_gradient,) = torch.autograd.grad((ours.values() * weights).sum(), logits, retain_graph=True)
        (verls_gradient,) = torch.autograd.grad((verls * weights).sum(), logits, retain_graph=True)
        torch.testing.assert_close(ours_gradient, verls_gradient)
