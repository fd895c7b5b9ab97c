"""Writes reference.safetensors with the reference implementation (pip install safetensors torch)."""
import pathlib

import torch
from safetensors.torch import save_file


def bits(words, dtype):
    """A tensor of a 16-bit floating dtype from its words."""
    return torch.tensor([w - 65536 if w > 32767 else w for w in words], dtype=torch.int16).view(dtype)


tensors = {
    "features.0.weight": torch.tensor([[0.0, -0.0, 1.0], [-1.5, 0.1, torch.finfo(torch.float32).max]]),
    # 0, -0, 1, 2^-24, the largest subnormal, 65504, inf, -inf
    "half": bits([0x0000, 0x8000, 0x3C00, 0x0001, 0x03FF, 0x7BFF, 0x7C00, 0xFC00], torch.float16).reshape(2, 2, 2),
    # 0, 1, -3, the largest
    "brain": bits([0x0000, 0x3F80, 0xC040, 0x7F7F], torch.bfloat16),
    "double": torch.tensor([0.1, -2.5], dtype=torch.float64),
    "num_batches_tracked": torch.tensor(391, dtype=torch.int64),
    "labels": torch.tensor([-1, 0, 9], dtype=torch.int32),
    "bytes": torch.tensor([0, 127, 255], dtype=torch.uint8),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 5),
}
save_file(tensors, pathlib.Path(__file__).with_name("reference.safetensors"),
          metadata={"format": "pt", "note": "caf\u00e9 \"quoted\""})
