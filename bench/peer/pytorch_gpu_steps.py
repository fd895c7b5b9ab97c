#!/usr/bin/env python3
"""PyTorch's training steps and losses on a GPU, on demand: the peer of compare_cuda.py.

    python3 pytorch_gpu_steps.py --precision fp32|tf32|bf16 [--layout nchw|channels_last]

Reads lines from standard input. "info": versions as one line of JSON. "run NAME_KIND COUNT": puts COUNT steps in a row, waits once, prints the
milliseconds of one; "error: ..." where that is not possible. Only the last NAME_KIND is kept. Needs torch with CUDA.

KIND: `eager`; `compile`, torch.compile of gather, forward pass and loss (dynamic=False, fullgraph=True), the optimiser fused but not compiled;
`graph`, the eager step recorded once as a CUDA graph, optimiser included; `compile_graph`, the compiled step recorded likewise.
NAME: `resnet18_train` (cross entropy), `resnet18_eval`, `light_nn_cached` and `simple_nn_cached` (0.75 CE + 0.25 T^2 KL, T = 2, the teacher's
logits cached), `light_nn_ce`, `simple_nn_ce`, `adam` (ResNet18's parameters), `loss_BxC` (that loss, forward and backward to the student's logits;
logits are float32 in every precision).

What a step includes, batch 128: gather of 128 random images (uint8, of 50,000 that lie on the GPU), normalisation to float32, labels, cached
logits, forward, loss, backward, Adam(fused=True), gradients set to None. The epoch's order lies on the GPU as well; a graph counts its position
there, so that a replay needs nothing from the host. Not included: the shuffle.

fp32: TF32 off in cuBLAS and cuDNN. tf32: on in both. bf16: torch.autocast, master weights in float32. Layout: NCHW in fp32, where cuDNN's kernels
without tensor cores want it, else channels_last; --layout sets it. cudnn.benchmark is on.
"""
import argparse
import gc
import json
import os
import pathlib
import re
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"))
import networks

BATCH, IMAGES, CLASSES, TEMPERATURE = 128, 50_000, 10, 2.0
# Compilation, and what libraries choose or allocate on first use, must be over before a recording begins.
WARM_UP = 5
KINDS = ("compile_graph", "compile", "graph", "eager")


def distillation_loss(logits, teacher, labels):
    soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, 1), F.softmax(teacher / TEMPERATURE, 1), reduction="batchmean")
    return 0.75 * F.cross_entropy(logits, labels) + 0.25 * TEMPERATURE ** 2 * soft


class Data:
    """50,000 random images, labels and teacher's logits on the GPU, and the order of an epoch."""

    def __init__(self, channels_last):
        shape = (IMAGES, 32, 32, 3) if channels_last else (IMAGES, 3, 32, 32)
        self.channels_last = channels_last
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
        self.labels = torch.randint(0, CLASSES, (IMAGES,), device="cuda")
        self.teacher = 3 * torch.randn(IMAGES, CLASSES, device="cuda")
        self.order = torch.randperm(IMAGES, device="cuda")
        mean = torch.tensor([0.485, 0.456, 0.406], device="cuda").view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225], device="cuda").view(1, 3, 1, 1)
        self.scale, self.shift = 1 / (255 * std), -mean / std


class Batches:
    """The indices of one batch after the other."""

    def __init__(self, order):
        self.order, self.count, self.at = order, len(order) // BATCH, 0
        self.start = torch.arange(BATCH, device="cuda")
        self.position = self.start.clone()

    def from_host(self):
        """A view: the host knows where the epoch is."""
        begin = self.at * BATCH
        self.at = (self.at + 1) % self.count
        return self.order[begin:begin + BATCH]

    def from_device(self):
        """For a recording: the GPU counts; begin_again() belongs before every replay."""
        index = self.order.index_select(0, self.position)
        self.position.add_(BATCH)
        return index

    def begin_again(self):
        """Starts the GPU's count again after the last batch."""
        if self.at == 0:
            self.position.copy_(self.start)
        self.at = (self.at + 1) % self.count


class Forward(nn.Module):
    """From a batch's indices to the loss, or to the logits where `loss` is None."""

    def __init__(self, network, data, loss, bf16):
        super().__init__()
        self.network, self.loss, self.bf16, self.channels_last = network, loss, bf16, data.channels_last
        for name in ("images", "labels", "teacher", "scale", "shift"):
            self.register_buffer(name, getattr(data, name), persistent=False)

    def forward(self, index):
        x = self.images.index_select(0, index)
        x = (x.permute(0, 3, 1, 2) if self.channels_last else x).float()
        x = x.mul_(self.scale).add_(self.shift)
        # Each weight is used once in a pass: the cache of casts would bring nothing, and a recording must not see an old one.
        with torch.autocast("cuda", torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            logits = self.network(x)
        if self.loss is None:
            return logits
        logits, labels = logits.float(), self.labels.index_select(0, index)
        if self.loss == "cross_entropy":
            return F.cross_entropy(logits, labels)
        return distillation_loss(logits, self.teacher.index_select(0, index), labels)


def recorded(step, clear):
    """`step` as a CUDA graph: warmed up and captured on one side stream, so that what libraries keep per stream exists before."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step()
        clear()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        step()
    return graph


def finished(kind, step, clear=lambda: None, before_replay=lambda: None):
    """What runs one step of this kind: the recording where there is to be one."""
    if not kind.endswith("graph"):
        return step
    graph = recorded(step, clear)

    def replay():
        before_replay()
        graph.replay()
    return replay


def adam_for(network, kind):
    return torch.optim.Adam(network.parameters(), lr=1e-3, fused=True, capturable=kind.endswith("graph"))


def compiled(function, kind):
    return torch.compile(function, dynamic=False, fullgraph=True) if kind.startswith("compile") else function


class Steps:
    def __init__(self, precision, layout):
        self.bf16 = precision == "bf16"
        self.channels_last = layout == "channels_last"
        self.data = Data(self.channels_last)

    def network(self, make):
        network = make().cuda()
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def train(self, kind, make, loss):
        network, batches = self.network(make).train(), Batches(self.data.order)
        forward, optimizer = compiled(Forward(network, self.data, loss, self.bf16), kind), adam_for(network, kind)
        next_index = batches.from_device if kind.endswith("graph") else batches.from_host
        clear = lambda: optimizer.zero_grad(set_to_none=True)

        def step():
            clear()
            forward(next_index()).backward()
            optimizer.step()
        return finished(kind, step, clear, batches.begin_again)

    def evaluate(self, kind):
        network, batches = self.network(networks.ResNet18).eval(), Batches(self.data.order)
        forward = compiled(Forward(network, self.data, None, self.bf16), kind)
        next_index = batches.from_device if kind.endswith("graph") else batches.from_host

        def step():
            with torch.no_grad():
                forward(next_index())
        return finished(kind, step, before_replay=batches.begin_again)

    def adam(self, kind):
        network = self.network(networks.ResNet18)
        for p in network.parameters():
            p.grad = 1e-3 * torch.randn_like(p)
        return finished(kind, adam_for(network, kind).step)

    def loss(self, kind, rows, classes):
        logits = (3 * torch.randn(rows, classes, device="cuda")).requires_grad_()
        teacher = 3 * torch.randn(rows, classes, device="cuda")
        labels = torch.randint(0, classes, (rows,), device="cuda")
        function = compiled(distillation_loss, kind)

        def clear():
            logits.grad = None

        def step():
            clear()
            function(logits, teacher, labels).backward()
        return finished(kind, step, clear)

    def make(self, name):
        """The step called NAME_KIND, or None."""
        kind = next((k for k in KINDS if name.endswith("_" + k)), None)
        if kind is None:
            return None
        name = name[:-len(kind) - 1]
        shape = re.fullmatch(r"loss_(\d+)x(\d+)", name)
        if shape:
            return self.loss(kind, int(shape[1]), int(shape[2]))
        makers = {
            "resnet18_train": lambda: self.train(kind, networks.ResNet18, "cross_entropy"),
            "resnet18_eval": lambda: self.evaluate(kind),
            "light_nn_cached": lambda: self.train(kind, networks.LightNN, "distillation"),
            "light_nn_ce": lambda: self.train(kind, networks.LightNN, "cross_entropy"),
            "simple_nn_cached": lambda: self.train(kind, networks.SimpleNN, "distillation"),
            "simple_nn_ce": lambda: self.train(kind, networks.SimpleNN, "cross_entropy"),
        }
        if not kind.startswith("compile"):
            makers["adam"] = lambda: self.adam(kind)
        return makers[name]() if name in makers else None


def milliseconds(step, count):
    """Of one step, of `count` in a row."""
    torch.cuda.synchronize()
    gc.disable()
    start = time.perf_counter()
    for _ in range(count):
        step()
    torch.cuda.synchronize()
    taken = time.perf_counter() - start
    gc.enable()
    return 1e3 * taken / count


def information(layout):
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            "gpu": torch.cuda.get_device_name(), "compute_capability": list(torch.cuda.get_device_capability()),
            "python": sys.version.split()[0], "layout": layout}


def serve(steps, layout, answers):
    def answer(text):
        print(text, file=answers, flush=True)

    current, step = None, None
    for line in sys.stdin:
        words = line.split()
        if words == ["info"]:
            answer(json.dumps(information(layout)))
            continue
        if len(words) != 3 or words[0] != "run" or not words[2].isdigit() or int(words[2]) < 1:
            answer(f"error: expected 'info' or 'run NAME_KIND COUNT'; received {line.strip()!r}")
            continue
        try:
            if words[1] != current:
                # What was compiled or recorded for another step would stay in memory, and count towards dynamo's limit.
                current, step = None, None
                if "torch._dynamo" in sys.modules:
                    torch._dynamo.reset()
                gc.collect()
                torch.cuda.empty_cache()
                step = steps.make(words[1])
                if step is None:
                    answer(f"error: no step is called {words[1]!r}")
                    continue
                for _ in range(WARM_UP):
                    step()
                current = words[1]
            answer(f"{milliseconds(step, int(words[2])):.6f}")
        except Exception as error:  # of any kind: the comparison goes on with the next step
            current, step = None, None
            answer(f"error: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--layout", choices=("nchw", "channels_last"), help="default: nchw in fp32, else channels_last")
    options = parser.parse_args()
    # Answers alone go to standard output: what libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if not torch.cuda.is_available():
        sys.exit("pytorch_gpu_steps: this torch sees no GPU: install one with CUDA, and check nvidia-smi")
    # The older of torch's two interfaces alone: with the newer one, or both, torch.compile fails in 2.9 and 2.10.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.precision != "fp32"
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(1)
    layout = options.layout or ("nchw" if options.precision == "fp32" else "channels_last")
    serve(Steps(options.precision, layout), layout, answers)


if __name__ == "__main__":
    main()
