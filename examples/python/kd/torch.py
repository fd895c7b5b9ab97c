"""kd's losses as functions that PyTorch differentiates: of the student's logits, once."""

from __future__ import annotations

import torch

from . import distillation as _distillation


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student, function, arguments):
        ctx.save_for_backward(student)
        ctx.again = lambda gradient: function(student.detach(), gradient=gradient, **arguments)
        ctx.gradient = torch.empty_like(student) if student.requires_grad else None
        result = ctx.again(False if ctx.gradient is None else ctx.gradient)
        return torch.tensor(result.total, dtype=torch.float32)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        (student,) = ctx.saved_tensors  # raises where it was changed meanwhile
        # Handed out once, so that PyTorch keeps it instead of a copy; a second backward computes it again.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = torch.empty_like(student)
            ctx.again(gradient)
        return gradient if upstream == 1 else gradient.mul_(upstream), None, None


def distillation(student, teacher, labels=None, **arguments):
    """kd.distillation as a tensor: ``distillation(student, teacher, labels, temperature=4.0).backward()``."""
    arguments.update(teacher=teacher.detach(), labels=labels)
    return _Loss.apply(student, _distillation, arguments)
