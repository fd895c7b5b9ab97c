"""Fused losses of knowledge distillation on arrays that you have: numpy, PyTorch, JAX, whatever speaks DLPack.

    import kd
    result = kd.distillation(student, teacher, labels, temperature=4.0)
    result.total, result["kd"], result.gradient

Logits are [rows,classes] or [sequences,rows,classes], float32, bfloat16 or float16, in the memory of the CPU; they are read
where they lie, slices of padded vocabularies too, and arithmetic is float32. Every loss is a weighted sum of terms that is
computed in one pass; losses() lists the terms that are offered together, and the options of each. The GIL is released
while a loss is computed. kd.torch has it as a function that PyTorch differentiates.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping

import numpy

from ._kd import NonFiniteError, losses
from . import _kd

__all__ = ["NonFiniteError", "Result", "distillation", "forward_backward", "losses"]
__version__ = "0.1.0"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a loss came to. ``result["kd"]`` is a term without its weight, ``total`` the weighted sum."""

    total: float
    terms: dict[str, float]
    accuracy: float  #: fraction of the rows whose largest student logit is the label; 0 without labels
    teacher_agreement: float  #: fraction of the rows where student and teacher have the same largest class
    rows: int  #: that are not ignored
    gradient: Any  #: d total / d student, of the student's shape and type; None where none was asked for
    per_row: numpy.ndarray | None  #: [rows,terms + 1], float64: the terms of each row, and their weighted sum

    def __getitem__(self, term: str) -> float:
        return self.terms[term]


def forward_backward(
    terms: Mapping[str, float],
    student: Any,
    teacher: Any = None,
    labels: Any = None,
    *,
    gradient: Any = True,
    add_to_gradient: bool = False,
    row_weights: Any = None,
    upstream: Any = None,
    ignore_index: int = -100,
    divide_by: str = "rows",
    per_row: bool = False,
    threads: int = 0,
    **options: float,
) -> Result:
    """The weighted sum of ``terms``, {name: weight}, and its gradient by the student's logits.

    gradient         an array of the student's shape and type to write to, which may be the student itself; True for a new
                     one (of numpy; of bfloat16, which numpy lacks, for from_dlpack of yours); False for values alone
    add_to_gradient  add to what is in ``gradient`` instead of writing over it
    labels           int32 or int64, [rows] or [sequences,rows]; rows of label ignore_index are left out, their gradient is 0
    row_weights      float32, of the labels' shape: multiply terms and gradient of each row
    upstream         float32, one or as many as rows: d objective / d total, multiplies the gradient
    divide_by        "rows", "valid_rows" (that are not ignored), "weights" (their sum) or "one" (the sum of the rows)
    threads          0: as many as the machine, OMP_NUM_THREADS and quotas allow
    options          temperature, teacher_temperature, times_temperature_squared, and those of the terms, as beta

    Raises ValueError for arguments that do not fit, before anything is written, and NonFiniteError, with row and class,
    where a row has no finite loss: the gradient is void then.
    """
    total, values, accuracy, agreement, rows, gradient, of_rows = _kd.forward_backward(
        list(terms.items()),
        [(name, float(value)) for name, value in options.items()],
        student,
        teacher,
        labels,
        gradient,
        row_weights,
        upstream,
        ignore_index,
        divide_by,
        add_to_gradient,
        per_row,
        threads,
    )
    return Result(total, dict(values), accuracy, agreement, rows, gradient, of_rows)


def distillation(
    student: Any,
    teacher: Any,
    labels: Any = None,
    *,
    temperature: float = 2.0,
    kd_weight: float = 0.25,
    ce_weight: float = 0.75,
    divergence: str = "forward_kl",
    **arguments: Any,
) -> Result:
    """kd_weight * T^2 divergence(teacher, student) + ce_weight * cross entropy with the labels, mean over the rows (Hinton,
    Vinyals, Dean: Distilling the knowledge in a neural network, arXiv:1503.02531). Without labels the divergence alone. The
    other arguments are those of forward_backward."""
    terms = {divergence: kd_weight}
    if labels is not None:
        terms["cross_entropy"] = ce_weight
    return forward_backward(terms, student, teacher, labels, temperature=temperature, **arguments)
