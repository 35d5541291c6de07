"""Log-probs and entropies of all tokens of a micro-batch at once.

Where flash-attention is missing, verl goes through the tokens one by one, to save memory of large vocabularies. For a tiny
model that is a third of an update.
"""

from __future__ import annotations

import torch


def log_probs_and_entropies(
    logits: torch.Tensor, input_ids: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What verl's FSDP engine computes from padded logits.

    Args:
        logits: rows x longest sequence x vocabulary, divided by the temperature.
        input_ids: the rows as a nested tensor (jagged), whose lengths are those of the sequences.
        labels: the next token of each token, of all rows one after the other.

    Returns:
        Log-probs of the labels and entropies in nats, each a nested tensor like `input_ids`.
    """
    offsets = input_ids.offsets()
    real = torch.arange(logits.shape[1], device=logits.device) < offsets.diff()[:, None]
    tokens = logits[real].log_softmax(-1)
    entropies = -(tokens.exp() * tokens).sum(-1)
    log_probs = tokens.gather(-1, labels[:, None]).squeeze(-1)
    return (
        torch.nested.nested_tensor_from_jagged(log_probs, offsets),
        torch.nested.nested_tensor_from_jagged(entropies, offsets),
    )
