"""Writes optim_golden.hpp: optimisers and schedules as PyTorch computes them (pip install torch)."""
import pathlib

import torch

WEIGHTS, STEPS = 6, 5
start = torch.tensor([0.5, -1.25, 0.0, 3.0, -0.001, 100.0])
gradients = [torch.tensor([0.1 * (k + 1), -2.0 / (k + 1), 0.0 if k == 0 else 1e-4, 5.0 * (-1) ** k, 1e-6 * k, 30.0 - k])
             for k in range(STEPS)]
RATES = [0.1, 0.1, 0.05, 0.05, 0.025]  # a schedule changes the rate between steps

optimisers = {
    "adam": (torch.optim.Adam, {}),
    "adam_decay": (torch.optim.Adam, dict(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)),
    "adamw": (torch.optim.AdamW, {}),
    "adamw_decay": (torch.optim.AdamW, dict(betas=(0.5, 0.9), eps=1e-6, weight_decay=0.5)),
    "sgd": (torch.optim.SGD, {}),
    "sgd_decay": (torch.optim.SGD, dict(weight_decay=0.1)),
    "sgd_momentum": (torch.optim.SGD, dict(momentum=0.9)),
    "sgd_dampening": (torch.optim.SGD, dict(momentum=0.9, dampening=0.3, weight_decay=0.01)),
    "sgd_nesterov": (torch.optim.SGD, dict(momentum=0.8, nesterov=True, weight_decay=0.01)),
}


def train(kind, options):
    weight = torch.nn.Parameter(start.clone())
    optimiser = kind([weight], lr=RATES[0], **options)
    rows = []
    for rate, gradient in zip(RATES, gradients):
        optimiser.param_groups[0]["lr"] = rate
        weight.grad = gradient.clone()
        optimiser.step()
        rows.append(weight.detach().clone())
    return torch.stack(rows)


def rates(make, count, base=0.1):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    schedule = make(optimiser)
    result = []
    for _ in range(count):
        result.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return result


schedules = {
    "step": rates(lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=3, gamma=0.5), 10),
    "cosine": rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=8, eta_min=0.01), 12),
    "one_cycle": rates(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=20,
                                                                     cycle_momentum=False), 20),
    "one_cycle_short": rates(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=3,
                                                                           cycle_momentum=False), 3),
}


def array(name, kind, values, extents):
    rows = ",\n    ".join(", ".join(values[i:i + 6]) for i in range(0, len(values), 6))
    return f"inline constexpr {kind} {name}{extents} = {{\n    {rows}}};\n"


def floats(tensor):
    texts = [repr(float(x)) for x in tensor.flatten()]
    return [t + "f" for t in texts]


text = f"""/// Written by make_optim_golden.py with PyTorch {torch.__version__.split('+')[0]}: do not edit.
#pragma once

#include <cstddef>

namespace kd_golden {{

// clang-format off
inline constexpr std::size_t weights = {WEIGHTS}, steps = {STEPS};
"""
text += array("start", "float", floats(start), "[weights]")
text += array("learning_rates", "double", [repr(r) for r in RATES], "[steps]")
text += array("gradients", "float", floats(torch.stack(gradients)), "[steps * weights]")
text += "/// Weights after each step, [steps,weights].\n"
for name, (kind, options) in optimisers.items():
    text += array(f"{name}_weights", "float", floats(train(kind, options)), "[steps * weights]")
text += "/// Learning rates at positions 0, 1, ... from a base of 0.1.\n"
for name, values in schedules.items():
    text += array(f"{name}_rates", "double", [repr(float(v)) for v in values], "[]")
text += "// clang-format on\n\n}  // namespace kd_golden\n"
pathlib.Path(__file__).with_name("optim_golden.hpp").write_text(text)
