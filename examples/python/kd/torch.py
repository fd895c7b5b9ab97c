"""kd's losses as functions that PyTorch differentiates: of the student's logits, once."""

from __future__ import annotations

import torch

from . import distillation as _distillation


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student, function, arguments):
        detached = student.detach()
        gradient = torch.empty_like(detached) if student.requires_grad else False
        result = function(detached, gradient=gradient, **arguments)
        ctx.save_for_backward(gradient if student.requires_grad else None)
        return torch.tensor(result.total, dtype=torch.float32)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None


def distillation(student, teacher, labels=None, **arguments):
    """kd.distillation as a tensor: ``distillation(student, teacher, labels, temperature=4.0).backward()``."""
    arguments.update(teacher=teacher.detach(), labels=labels)
    return _Loss.apply(student, _distillation, arguments)
