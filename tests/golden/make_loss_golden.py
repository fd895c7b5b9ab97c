"""Writes loss_golden.hpp: losses on logits and their gradients as PyTorch computes them in float64 (pip install torch)."""
import pathlib

import torch
import torch.nn.functional as F

ROWS, CLASSES, T = 4, 5, 2.0
torch.manual_seed(3)
# Multiples of 1/64, which floats hold exactly.
z = (torch.randn(ROWS, CLASSES) * 128).round().double() / 64
t = (torch.randn(ROWS, CLASSES) * 256).round().double() / 64
labels = torch.tensor([3, 0, 4, 0])


def kl(log_p, log_q):
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def softened(of, student_T=T, teacher_T=T, scale=T * T):
    return lambda z: scale * of((t / teacher_T).log_softmax(1), (z / student_T).log_softmax(1))


def mixture(w, log_p, log_q):
    return (w * log_p.exp() + (1 - w) * log_q.exp()).log()


def jensen_shannon(log_p, log_q, beta):
    m = mixture(beta, log_p, log_q)
    return beta * kl(log_p, m) + (1 - beta) * kl(log_q, m)


def alpha(log_p, log_q, a):
    return ((1 - (a * log_p + (1 - a) * log_q).exp().sum(1)) / (a * (1 - a))).mean()


def dkd(z, target_weight, others_weight):
    label = F.one_hot(labels, CLASSES).bool()

    def two(logits):
        p = (logits / T).softmax(1)
        return torch.stack([p[label], (p * ~label).sum(1)], 1).log()

    def others(logits):
        return (logits[~label].view(ROWS, CLASSES - 1) / T).log_softmax(1)

    return T * T * (target_weight * kl(two(t), two(z)) + others_weight * kl(others(t), others(z)))


def pearson(log_p, log_q):
    p, q = log_p.exp(), log_q.exp()
    return (1 - F.cosine_similarity(q - q.mean(1, keepdim=True), p - p.mean(1, keepdim=True), dim=1, eps=0)).mean()


def standardised(z):
    def of(logits):
        return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7) / T

    return T * T * kl(of(t).log_softmax(1), of(z).log_softmax(1))


def soft_capped(z):
    q, p = 3 * torch.tanh(0.75 * z / 3), 4 * torch.tanh(t / 4)
    return 0.5 * T * T * kl((p / T).log_softmax(1), (q / T).log_softmax(1)) + 0.5 * F.cross_entropy(q, labels)


# A teacher of whom K classes were kept, with log-probabilities that floats hold exactly; all other classes are one.
K = 2
kept = t.topk(K, dim=1).indices
kept_log_p = t.log_softmax(1).gather(1, kept).float().double()


def one_bucket(z):
    log_q = (z / T).log_softmax(1)
    rest_p = torch.log1p(-kept_log_p.exp().sum(1, keepdim=True))
    rest_q = log_q.scatter(1, kept, -torch.inf).logsumexp(1, keepdim=True)
    return T * T * kl(torch.cat([kept_log_p, rest_p], 1), torch.cat([log_q.gather(1, kept), rest_q], 1))


losses = {
    "forward_kl": softened(kl),
    "forward_kl_one_bucket": one_bucket,
    "forward_kl_two_temperatures": softened(kl, teacher_T=4.0, scale=1),  # and without T^2
    # The teacher's logits are log-probabilities as they are, whatever they sum to: the weight keeps the result near 1.
    "partial_kl": lambda z: T * T * kl(t, (z / T).log_softmax(1)) / 1024,
    "reverse_kl": softened(lambda p, q: kl(q, p)),
    "jeffreys": softened(lambda p, q: kl(p, q) + kl(q, p)),
    "jensen_shannon": softened(lambda p, q: jensen_shannon(p, q, 0.5)),
    "jensen_shannon_quarter": softened(lambda p, q: jensen_shannon(p, q, 0.25)),
    "total_variation": softened(lambda p, q: 0.5 * (p.exp() - q.exp()).abs().sum(1).mean()),
    "alpha_divergence": softened(lambda p, q: alpha(p, q, 0.5)),
    "alpha_divergence_quarter": softened(lambda p, q: alpha(p, q, 0.25)),
    "skewed_kl": softened(lambda p, q: kl(p, mixture(0.125, p, q))),
    "skewed_reverse_kl": softened(lambda p, q: kl(q, mixture(0.875, p, q))),
    "soft_cross_entropy": lambda z: T * T * F.cross_entropy(z / T, (t / T).softmax(1)),
    "logit_mse": lambda z: F.mse_loss(z, t),
    "dkd": lambda z: dkd(z, 1.0, 8.0),
    "dist": softened(pearson),
    "standardised_kd": standardised,
    "cross_entropy": lambda z: F.cross_entropy(z, labels),
    "smoothed_cross_entropy": lambda z: F.cross_entropy(z, labels, label_smoothing=0.125),
    "z_loss": lambda z: z.logsumexp(1).square().mean(),
    "soft_capped": soft_capped,
}


def array(name, kind, values, extents):
    rows = ",\n    ".join(", ".join(values[i:i + CLASSES]) for i in range(0, len(values), CLASSES))
    return f"inline constexpr {kind} {name}{extents} = {{\n    {rows}}};\n"


def doubles(tensor):
    return [repr(float(x)) for x in tensor.flatten()]


text = f"""/// Written by make_loss_golden.py with PyTorch {torch.__version__.split('+')[0]}: do not edit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kd_golden {{

// clang-format off
inline constexpr std::size_t loss_rows = {ROWS}, loss_classes = {CLASSES};
inline constexpr float loss_temperature = {T}f;
"""
text += array("loss_student", "double", doubles(z), "[loss_rows * loss_classes]")
text += array("loss_teacher", "double", doubles(t), "[loss_rows * loss_classes]")
text += array("loss_labels", "std::size_t", [str(int(y)) for y in labels], "[loss_rows]")
text += f"inline constexpr std::size_t loss_kept = {K};\n"
text += array("loss_kept_classes", "std::int32_t", [str(int(c)) for c in kept.flatten()], "[loss_rows * loss_kept]")
text += array("loss_kept_log_p", "float", [repr(float(p)) + "f" for p in kept_log_p.flatten()], "[loss_rows * loss_kept]")
text += """/// The mean over the rows, and its gradient.
struct loss_golden {
  double value, d_student[loss_rows * loss_classes];
};
"""
for name, loss in losses.items():
    x = z.clone().requires_grad_()
    value = loss(x)
    value.backward()
    rows = ",\n    ".join(", ".join(doubles(row)) for row in x.grad)
    text += f"inline constexpr loss_golden {name} = {{{value.item()!r}, {{\n    {rows}}}}};\n"
text += """// clang-format on

}  // namespace kd_golden
"""
pathlib.Path(__file__).with_name("loss_golden.hpp").write_text(text)
