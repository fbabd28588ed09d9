"""Scaled dot-product attention, by the kernel that is fastest where the tensors are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .output import shortcuts_allowed


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(head size)) value.

    Args:
        query: (N, heads, Q, head size).
        key: (N, heads, S, head size).
        value: (N, heads, S, head size).

    Returns:
        (N, heads, Q, head size).
    """
    # the fused CPU kernel's backward pass in bfloat16 is 5 to 10 times slower than plain products (torch 2.13), its
    # forward pass up to 2 times: the sequences here are short (4 to 144), so nothing is gained by not storing the
    # scores
    if query.device.type == "cpu" or not shortcuts_allowed():
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return scores.softmax(dim=-1) @ value
    return F.scaled_dot_product_attention(query, key, value)
