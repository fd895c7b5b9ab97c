#!/usr/bin/env python3
"""Writes one PyTorch training step of SimpleNN, LightNN and ResNet18: the values that kd's step is held against.

    python3 make_step_golden.py [OUT_DIR]     # needs torch, numpy, safetensors; half a minute; default: this folder

Everything that goes into a step follows from a seed s (the file's metadata, `seed`) by Philox4x32-10, word w(i) of element i being
word i % 4 of the counter {i / 4, b, c, stream}; u = (w >> 8) * 2^-24, r = 2u - 1:
  parameter k of named_parameters() (metadata `parameters`, one per line), element i row-major as PyTorch stores it,
      counter {i/4, 0, k, 100}, float32 arithmetic: dim >= 2: r / sqrt(fan_in), fan_in the product of all dimensions but the first;
      batch-norm weight: 1 + 0.1 r; every bias: 0.1 r. Running statistics start at 0 and 1.
  pixel e = channel * 1024 + row * 32 + column of image n, counter {e/4, n, 0, 101}: byte = w >> 24, x = (byte / 255 - mean) / std, ImageNet's.
  label of image n: n * 7 % 10.
  teacher logit e = n * 10 + class, counter {e/4, 0, 0, 102}: 6 r.
  dropout (p = 0.1 in LightNN, 0.2 in SimpleNN), element e = sample * features + feature, counter {e/4, 0, 0, 3}: kept, times
      1 / (1 - p), where u >= p.
  loss: cross entropy (ce cases, ResNet18), or 0.75 CE + 0.25 T^2 KL(softmax(t/T) || softmax(z/T)), means over the batch (kd cases).
  then one step of Adam: lr 1e-3, betas 0.9 and 0.999, eps 1e-8.
Batch norm and dropout are in training mode. All stored values are of a float64 run.

Tensors, CASE being one of the metadata's `cases` (name, batch, T, one per line; T 0: plain cross entropy):
  CASE/loss F64[3]: total, CE, T^2 KL (0 in ce cases). CASE/logits F64[B,10].
  CASE/grad/NAME F64[4]: l2 norm, sum, dot product with the signs w & 1 ? 1 : -1 from the counter {i/4, 0, k, 103}, largest magnitude.
  CASE/grad_samples/NAME F32[S]: elements (i * 2654435761 mod 2^32) mod numel for i = 0 .. S - 1.
  CASE/updated_samples/NAME F64[S]: the parameter after the step, the same elements.
  CASE/update/NAME F64[2]: l2 norm and largest magnitude of (after - before).
  CASE/running/NAME F32: ResNet18's running_mean and running_var after the step.
  eval/logits F64[B,10]: evaluation mode, initial parameters (ResNet18: with CASE/running).

How to compare. Logits, running statistics and gradient samples against the tensor's largest magnitude;
sum and dot product against max(l2 norm, |value|): a sum cancels.
Updates: Adam's first step is lr * g / (|g| + eps), about lr * sign(g): where the true |g| is within rounding of 0 its sign, and so 2 lr of the
parameter, is chance. Compare updated_samples only where |grad_samples| > 1e-4 * the tensor's largest magnitude or where it is exactly 0
(the update then is exactly 0), and besides the parameter compare (after - before) with lr * 1e-4 + one rounding of the parameter: 1e-4 of a
parameter alone is far more than 1e-4 of the step. The norm of the update is safe for the whole tensor.

A relu or a pool that decides differently in float32 moves gradients by more than rounding. The seeds are those for which every relu input, and
every gap between the two largest values of a pool, is at least MARGIN times that layer's largest float32 error; and the float32
run must agree with the float64 run to 1e-5 in every stored value by the measures above, or nothing is written.
"""
import copy
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import networks
from philox import symmetric, uniform, words

SEED = {"SimpleNN": 20260105, "LightNN": 20260126, "ResNet18": 20260101}  # the first from 20260101 on that keep the margin
MARGIN = {"SimpleNN": 4, "LightNN": 4, "ResNet18": 0.8}  # ResNet18's 0.8 of the largest error is 5 times the rms error or more, in each layer
LR = 1e-3
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


class FixedDropout(nn.Module):
    def __init__(self, p, features, seed):
        super().__init__()
        self.p, self.features, self.seed = p, features, seed

    def forward(self, x):
        if not self.training:
            return x
        assert x.shape[1] == self.features
        keep = uniform(words(x.numel(), self.seed, 0, 0, 3)) >= np.float32(self.p)
        return x * torch.from_numpy(keep).to(x.dtype).reshape(x.shape) / (1 - self.p)


def build(name, seed):
    """The network in float32 with the recipe's parameters."""
    model = getattr(networks, name)()
    with torch.no_grad():
        for k, (parameter, p) in enumerate(model.named_parameters()):
            r = symmetric(words(p.numel(), seed, 0, k, 100))
            if p.dim() >= 2:
                value = r / np.sqrt(np.float32(p[0].numel()))
            elif parameter.endswith("weight"):
                value = np.float32(1) + np.float32(0.1) * r
            else:
                value = np.float32(0.1) * r
            assert value.dtype == np.float32
            p.copy_(torch.from_numpy(value).reshape(p.shape))
    if hasattr(model, "classifier"):
        model.classifier[2] = FixedDropout(model.classifier[2].p, model.classifier[0].out_features, seed)
    return model


def batch_of(count, seed):
    """Images float64 [B,3,32,32], labels [B], teacher logits [B,10]."""
    byte = np.stack([words(3072, seed, n, 0, 101) >> np.uint32(24) for n in range(count)]).reshape(count, 3, 32, 32)
    x = (byte / 255 - MEAN[:, None, None]) / STD[:, None, None]
    teacher = (np.float32(6) * symmetric(words(count * 10, seed, 0, 0, 102))).reshape(count, 10)
    return torch.from_numpy(x), torch.arange(count) * 7 % 10, torch.from_numpy(teacher)


def decisions(model, x):
    """Per relu and pool, in the order of the forward pass: its input, and its kind."""
    seen = []
    def record(module, inputs):
        seen.append((module, inputs[0].detach().clone()))
    hooks = [m.register_forward_pre_hook(record) for m in model.modules() if isinstance(m, (nn.ReLU, nn.MaxPool2d))]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


def margin(model, x):
    """The smallest distance from a changed decision, in units of the layer's float32 error."""
    exact = decisions(copy.deepcopy(model).double(), x)
    rounded = decisions(copy.deepcopy(model), x.float())
    smallest = np.inf
    for (module, a), (_, b) in zip(exact, rounded):
        error = (a - b.double()).abs().max().item()
        distance = a.abs().min().item()
        if isinstance(module, nn.MaxPool2d):
            k, s, p = module.kernel_size, module.stride, module.padding
            windows = F.unfold(a.reshape(-1, 1, *a.shape[2:]), k, padding=p, stride=s)  # inputs are >= 0: padding with 0 loses every tie
            top = windows.topk(2, dim=1).values
            gap = (top[:, 0] - top[:, 1])[top[:, 0] > 0]  # where all are 0 the relu below stops the gradient
            distance = gap.min().item() / 2
        smallest = min(smallest, distance / error)
    return smallest


def step(model, x, y, teacher, temperature):
    """One training step in the model's precision; everything that a case stores, as float64."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    logits = model(x)
    ce = F.cross_entropy(logits, y)
    kd, total = torch.zeros_like(ce), ce
    if temperature:
        kd = temperature ** 2 * F.kl_div(F.log_softmax(logits / temperature, 1), F.log_softmax(teacher / temperature, 1),
                                         reduction="batchmean", log_target=True)
        total = 0.75 * ce + 0.25 * kd
    total.backward()
    gradients = {name: p.grad.double() for name, p in model.named_parameters()}
    optimizer.step()
    return {
        "loss": torch.stack([total, ce, kd]).detach().double(), "logits": logits.detach().double(),
        "gradients": gradients, "before": {name: p.double() for name, p in before.items()},
        "after": {name: p.detach().double() for name, p in model.named_parameters()},
        "running": {name: b.double() for name, b in model.named_buffers() if "running" in name},
    }


def stored(run, seed, samples):
    """The tensors of one case, without the case's name, and the scale that each is compared at."""
    tensors, scale = {"loss": run["loss"], "logits": run["logits"]}, {"logits": run["logits"].abs().max()}
    for name, value in run["running"].items():
        tensors[f"running/{name}"] = value
        scale[f"running/{name}"] = value.abs().max()
    for k, (name, gradient) in enumerate(run["gradients"].items()):
        g = gradient.reshape(-1)
        at = torch.arange(samples) * 2654435761 % 2 ** 32 % g.numel()
        sign = torch.from_numpy(2.0 * (words(g.numel(), seed, 0, k, 103) & 1) - 1)
        tensors[f"grad/{name}"] = torch.stack([g.norm(), g.sum(), g.dot(sign), g.abs().max()])
        scale[f"grad/{name}"] = tensors[f"grad/{name}"].abs().clamp(min=g.norm() * torch.tensor([0, 1, 1, 0]))
        tensors[f"grad_samples/{name}"] = g[at]
        scale[f"grad_samples/{name}"] = g.abs().max()
        delta = (run["after"][name] - run["before"][name]).reshape(-1)
        tensors[f"updated_samples/{name}"] = run["after"][name].reshape(-1)[at]
        tensors[f"update/{name}"] = torch.stack([delta.norm(), delta.abs().max()])
    return tensors, scale


def disagreement(exact, rounded, seed, samples):
    """The largest difference of the float32 run, relative as the docstring says, and where."""
    a, scale = stored(exact, seed, samples)
    b, _ = stored(rounded, seed, samples)
    worst = (0.0, "")
    for name, value in a.items():
        if name.startswith("updated_samples/"):
            g, largest = a[name.replace("updated", "grad")], a[name.replace("updated_samples", "grad")][3]
            clear = (g.abs() > 1e-4 * largest) | (g == 0)
            before = (value.abs().clamp(min=LR) * 2 ** -23)
            error = (((value - b[name]).abs() - before).clamp(min=0) / LR)[clear]  # of the step, beyond the parameter's rounding
        elif name.startswith("update/"):
            # after - before in float32 carries the parameter's rounding, which is no error of the step.
            parameter = exact["before"][name.removeprefix("update/")].abs().max()
            error = ((value - b[name]).abs() / value.clamp(min=1e-30) - parameter * 2 ** -23 / LR).clamp(min=0)
        else:
            error = (value - b[name]).abs() / scale.get(name, value.abs()).clamp(min=1e-30)
        error = error.max().item() if error.numel() else 0.0
        if not error <= worst[0]:
            worst = (error, name)
    return worst


def write(name, cases, samples, out):
    count = max(batch for _, batch, _ in cases)
    seed = SEED[name]
    model = build(name, seed)
    distance = min(margin(model.train(), batch_of(batch, seed)[0]) for batch in {batch for _, batch, _ in cases})
    assert distance >= MARGIN[name], "a decision is too close: try the next seed"
    exact_model = copy.deepcopy(model).double()
    tensors = {}
    for case, batch, temperature in cases:
        x, y, teacher = batch_of(batch, seed)
        exact = step(exact_model, x, y, teacher.double(), temperature)
        rounded = step(model, x.float(), y, teacher, temperature)
        error, where = disagreement(exact, rounded, seed, samples)
        print(f"{name} seed {seed} margin {distance:.1f} {case}: float32 differs by {error:.1e} at {where}")
        assert error <= 1e-5, "float32 and float64 disagree: the comparison would not be meaningful"
        for key, value in stored(exact, seed, samples)[0].items():
            single = key.startswith(("grad_samples/", "running/"))
            tensors[f"{case}/{key}"] = value.float() if single else value
        if exact["running"]:
            exact_model.load_state_dict(exact["running"], strict=False)
    with torch.no_grad():
        tensors["eval/logits"] = exact_model.eval()(batch_of(count, seed)[0])
    metadata = {
        "network": name, "seed": str(seed), "torch": torch.__version__.split("+")[0], "written_by": "tests/golden/make_step_golden.py",
        "parameters": "\n".join(n for n, _ in model.named_parameters()),
        "cases": "\n".join(f"{case} {batch} {temperature}" for case, batch, temperature in cases),
    }
    snake = {"SimpleNN": "simple_nn", "LightNN": "light_nn", "ResNet18": "resnet18"}[name]
    save_file({key: value.contiguous() for key, value in tensors.items()}, out / f"{snake}_step.safetensors", metadata)
    if name == "SimpleNN":  # what a person saves in PyTorch; its logits are eval/logits of simple_nn_step.safetensors
        save_file(model.state_dict(), out / "simple_nn_state_dict.safetensors", {"format": "pt"})


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    torch.set_num_threads(2)
    write("SimpleNN", [("ce", 32, 0), ("kd", 32, 2.0)], 64, out)
    write("LightNN", [("ce", 32, 0), ("kd", 32, 2.0), ("kd_near_one", 32, 1.01), ("kd_tail", 19, 2.0)], 48, out)
    write("ResNet18", [("ce", 16, 0)], 32, out)


if __name__ == "__main__":
    main()
