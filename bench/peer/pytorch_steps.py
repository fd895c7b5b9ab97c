#!/usr/bin/env python3
"""Times of PyTorch's training steps and losses on the CPU: the peer that kd is measured against, in its strongest configuration.

    python3 pytorch_steps.py [--data DIR] [--names NAME ...] [--seconds 3] [--json FILE]
    python3 pytorch_steps.py --serve        # the protocol of compare.py: "run NAME COUNT" in, median milliseconds out

Needs torch and numpy (2.15.0 from PyPI). Configuration: jemalloc that never gives memory back (the script starts itself
again with it; libjemalloc2), 2 threads, flushed denormals, Adam(fused=True), gradients set to None. Students run eagerly in channels_last;
ResNet18 trains eagerly in NCHW; its forward pass alone, also as the live teacher, is torch.compile in channels_last.

What a step includes, batch 128: gather of 128 random images (uint8, from 50,000 in memory), normalisation to float32, labels, cached teacher
logits by sample index where there are any, forward, loss, backward, Adam. Not included: the shuffle. `resnet18_eval`: gather, normalisation,
forward. `loss_BxC`: forward and backward of 0.75 CE + 0.25 T^2 KL (T = 2) to the student's logits, eager or compiled. `adam`: the optimiser
alone on ResNet18's parameters. `probe`: a 1024^3 float32 matrix product, to see whether the machine is undisturbed.
"""
import argparse
import glob
import json
import os
import pathlib
import statistics
import sys
import time

JEMALLOC = glob.glob("/usr/lib/*/libjemalloc.so.2") + glob.glob("/usr/lib/libjemalloc.so.2")
BATCH, IMAGES, TEMPERATURE = 128, 50_000, 2.0
LOSS_SHAPES = [(128, 10), (128, 1000), (4096, 1000), (1024, 32_000), (512, 128_256)]


def restart_with_jemalloc():
    if JEMALLOC and "libjemalloc" not in os.environ.get("LD_PRELOAD", ""):
        environment = dict(os.environ, LD_PRELOAD=JEMALLOC[0],
                           MALLOC_CONF="dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always")
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)


if __name__ == "__main__":
    restart_with_jemalloc()

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"))
import networks


def distillation_loss(logits, teacher, labels):
    soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, 1), F.softmax(teacher / TEMPERATURE, 1), reduction="batchmean")
    return 0.75 * F.cross_entropy(logits, labels) + 0.25 * TEMPERATURE ** 2 * soft


class Data:
    """50,000 uint8 images, read from CIFAR-10's binary files or random; batches come out normalised."""

    def __init__(self, folder):
        if folder:
            files = sorted(pathlib.Path(folder).rglob("data_batch_*.bin"))
            records = np.concatenate([np.fromfile(f, np.uint8).reshape(-1, 3073) for f in files])
            images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
            self.labels = torch.from_numpy(records[:, 0].astype(np.int64))
        else:
            images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
            self.labels = torch.randint(0, 10, (IMAGES,))
        self.images = {False: images, True: images.permute(0, 2, 3, 1).contiguous()}  # by channels_last
        self.teacher = 3 * torch.randn(len(images), 10)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.scale, self.shift = (1 / (255 * std)).view(1, 3, 1, 1), (-mean / std).view(1, 3, 1, 1)
        self.order, self.at = torch.randperm(len(images)), 0

    def batch(self, channels_last):
        if self.at + BATCH > len(self.order):
            self.at = 0
        index = self.order[self.at:self.at + BATCH]
        self.at += BATCH
        x = self.images[channels_last].index_select(0, index)
        x = (x.permute(0, 3, 1, 2) if channels_last else x).float()
        return x.mul_(self.scale).add_(self.shift), self.labels[index], index


def adam_for(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def train_step(model, data, channels_last, teacher=None):
    """`teacher`: None (plain cross entropy), "cached", or a function from images to logits."""
    model.train()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = adam_for(model)

    def step():
        x, y, index = data.batch(channels_last)
        optimizer.zero_grad(set_to_none=True)
        if teacher is None:
            loss = F.cross_entropy(model(x), y)
        elif teacher == "cached":
            loss = distillation_loss(model(x), data.teacher[index], y)
        else:
            loss = distillation_loss(model(x), teacher(x), y)
        loss.backward()
        optimizer.step()
    return step


def evaluation(compile_it):
    model = networks.ResNet18().eval().to(memory_format=torch.channels_last)
    model = torch.compile(model) if compile_it else model

    def forward(x):
        with torch.no_grad():
            return model(x)
    return forward


def forward_step(data, compile_it):
    forward = evaluation(compile_it)
    return lambda: forward(data.batch(True)[0])


def loss_step(rows, classes, compile_it):
    logits = (3 * torch.randn(rows, classes)).requires_grad_()
    teacher, labels = 3 * torch.randn(rows, classes), torch.randint(0, classes, (rows,))
    loss = torch.compile(distillation_loss, dynamic=False) if compile_it else distillation_loss

    def step():
        logits.grad = None
        loss(logits, teacher, labels).backward()
    return step


def adam_step():
    model = networks.ResNet18()
    for p in model.parameters():
        p.grad = 1e-3 * torch.randn_like(p)
    return adam_for(model).step


def probe_step():
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return lambda: torch.mm(a, b)


def all_steps(data):
    """Name -> a function that builds the step."""
    steps = {
        "probe": probe_step,
        "resnet18_train": lambda: train_step(networks.ResNet18(), data, False),
        "resnet18_eval": lambda: forward_step(data, True),
        "resnet18_eval_eager": lambda: forward_step(data, False),
        "light_nn_cached": lambda: train_step(networks.LightNN(), data, True, "cached"),
        "light_nn_live": lambda: train_step(networks.LightNN(), data, True, evaluation(True)),
        "light_nn_ce": lambda: train_step(networks.LightNN(), data, True),
        "light_nn_cached_nchw": lambda: train_step(networks.LightNN(), data, False, "cached"),
        "simple_nn_cached": lambda: train_step(networks.SimpleNN(), data, True, "cached"),
        "simple_nn_ce": lambda: train_step(networks.SimpleNN(), data, True),
        "simple_nn_cached_nchw": lambda: train_step(networks.SimpleNN(), data, False, "cached"),
        "resnet18_train_channels_last": lambda: train_step(networks.ResNet18(), data, True),
        "adam": adam_step,
    }
    for rows, classes in LOSS_SHAPES:
        for kind in ("eager", "compile"):
            steps[f"loss_{rows}x{classes}_{kind}"] = lambda r=rows, c=classes, k=kind: loss_step(r, c, k == "compile")
    return steps


def times(step, count):
    """Milliseconds of `count` calls."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def serve(steps):
    built = {}
    for line in sys.stdin:
        words = line.split()
        if len(words) != 3 or words[0] != "run" or words[1] not in steps or not words[2].isdigit() or int(words[2]) < 1:
            print(f"error: expected 'run NAME COUNT', NAME one of {' '.join(steps)}; received {line.strip()!r}", flush=True)
            continue
        if words[1] not in built:
            built[words[1]] = steps[words[1]]()
            times(built[words[1]], 3)
        print(f"{statistics.median(times(built[words[1]], int(words[2]))):.6f}", flush=True)


def table(steps, names, seconds, json_file):
    rows = []
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, "
          f"jemalloc {'on' if 'libjemalloc' in os.environ.get('LD_PRELOAD', '') else 'NOT FOUND'}; milliseconds")
    print(f"{'step':30} {'median':>10} {'20%':>10} {'80%':>10} {'calls':>6}")
    for name in names:
        step = steps[name]()
        warm = times(step, 3)
        taken = sorted(times(step, max(5, min(1000, int(1e3 * seconds / warm[-1])))))
        row = {"name": name, "median_ms": statistics.median(taken), "p20_ms": taken[len(taken) // 5],
               "p80_ms": taken[len(taken) * 4 // 5], "calls": len(taken)}
        rows.append(row)
        print(f"{name:30} {row['median_ms']:10.4f} {row['p20_ms']:10.4f} {row['p80_ms']:10.4f} {row['calls']:6}", flush=True)
    if json_file:
        pathlib.Path(json_file).write_text(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(),
                                                       "steps": rows}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with CIFAR-10's data_batch_*.bin; default: random images")
    parser.add_argument("--names", nargs="+", help="default: all")
    parser.add_argument("--seconds", type=float, default=3, help="time spent on each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="also write the table here")
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    torch.set_flush_denormal(True)  # before the worker threads start: they inherit it
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    steps = all_steps(Data(options.data))
    unknown = sorted(set(options.names or []) - set(steps))
    if unknown:
        parser.error(f"--names: no step is called {unknown[0]}; there are: {' '.join(steps)}")
    if options.serve:
        serve(steps)
    else:
        table(steps, options.names or list(steps), options.seconds, options.json)


if __name__ == "__main__":
    main()
