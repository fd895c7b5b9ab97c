#!/usr/bin/env python3
"""Does kd train as PyTorch does? N seeds of a network on each side; the difference of where they end, in standard errors.

    python3 compare_training.py --kd build/bench/train.training_serve --data DIR [--networks SimpleNN LightNN ...] [--seeds 8]
                                [--peer-seeds N] [--epochs 10] [--teacher FILE] [--json FILE]

DIR holds CIFAR-10's binary files. Networks: ResNet18, LightNN, SimpleNN, LightNN-distilled (T = 2, 0.75 CE + 0.25 KD, from the cached logits of the
ResNet18 in FILE, safetensors with PyTorch's names, the same for both sides). Both train by the report's recipe: batch 128, the last one
smaller, Adam 1e-3, ImageNet's normalisation, no augmentation. The loss is the mean over the samples of the last epoch, in training mode.

A line per network: means and standard deviations over the seeds of both sides, difference and standard error sqrt(s1^2/n1 + s2^2/n2), and
their ratio: within 2 is agreement, and of 20 such figures one lies outside by chance. The ratio of the deviations is that of an F test: with 8 and 8
seeds chance alone gives 0.45 to 2.2. Exit code 1 where a ratio is beyond 2. --json keeps every run, and what is in it is not run again.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"))
import networks

NETWORKS = ["SimpleNN", "LightNN", "LightNN-distilled", "ResNet18"]
BATCH, LEARNING_RATE, TEMPERATURE, KD_WEIGHT = 128, 1e-3, 2.0, 0.25
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def read(folder, pattern):
    files = sorted(pathlib.Path(folder).rglob(pattern))
    if not files:
        sys.exit(f"compare_training: no {pattern} below {folder!r}; pass the folder of CIFAR-10's binary files as --data")
    records = np.concatenate([np.fromfile(f, np.uint8).reshape(-1, 3073) for f in files])
    return torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(records[:, 0].astype(np.int64))


def pixels(images):
    return ((images.float() / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


class Peer:
    """PyTorch's side."""

    def __init__(self, data, teacher):
        self.train, self.test = read(data, "data_batch_*.bin"), read(data, "test_batch.bin")
        self.teacher, self.logits = teacher, None

    def predict(self, model, images):
        model.eval()
        with torch.no_grad():
            return torch.cat([model(pixels(images[i:i + 500])) for i in range(0, len(images), 500)])

    def teacher_logits(self):
        if self.logits is None:
            from safetensors.torch import load_file
            model = networks.ResNet18().to(memory_format=torch.channels_last)
            model.load_state_dict(load_file(self.teacher))
            self.logits = self.predict(model, self.train[0])
        return self.logits

    def run(self, network, seed, epochs):
        distilled = network.endswith("-distilled")
        teacher = self.teacher_logits() if distilled else None
        torch.manual_seed(seed)
        model = getattr(networks, network.removesuffix("-distilled"))().to(memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
        images, labels = self.train
        for _ in range(epochs):
            model.train()
            loss_sum = ce_sum = 0.0
            for index in torch.randperm(len(images)).split(BATCH):
                optimiser.zero_grad(set_to_none=True)
                z = model(pixels(images[index]))
                ce = loss = F.cross_entropy(z, labels[index])
                if distilled:
                    kd = TEMPERATURE ** 2 * F.kl_div(F.log_softmax(z / TEMPERATURE, 1), F.log_softmax(teacher[index] / TEMPERATURE, 1),
                                                     reduction="batchmean", log_target=True)
                    loss = (1 - KD_WEIGHT) * ce + KD_WEIGHT * kd
                loss.backward()
                optimiser.step()
                loss_sum += loss.item() * len(index)
                ce_sum += ce.item() * len(index)
        right = (self.predict(model, self.test[0]).argmax(1) == self.test[1]).float().mean().item()
        return loss_sum / len(images), ce_sum / len(images), 100 * right


class Kd:
    """The program bench/train/training_serve.cpp."""

    def __init__(self, program, data, teacher, threads):
        command = [program, "--data", data, "--threads", str(threads)] + (["--teacher", teacher] if teacher else [])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, network, seed, epochs):
        try:
            self.process.stdin.write(f"train {network} {seed} {epochs}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline().strip()
            loss, ce, accuracy = (float(word) for word in line.split())
        except (BrokenPipeError, ValueError):
            sys.exit(f"compare_training: kd answered {line!r} to 'train {network} {seed} {epochs}'; expected three numbers")
        return loss, ce, accuracy


def moments(values):
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def compare(name, mine, peers):
    """Prints one line; whether it lies within two standard errors."""
    (m1, s1), (m2, s2) = moments(mine), moments(peers)
    error = math.sqrt(s1 ** 2 / len(mine) + s2 ** 2 / len(peers))
    ratio = (m1 - m2) / error if error > 0 else math.nan
    print(f"{name:32} kd {m1:8.4f} +- {s1:.4f} ({len(mine)})   PyTorch {m2:8.4f} +- {s2:.4f} ({len(peers)})   "
          f"difference {m1 - m2:+.4f}, standard error {error:.4f}: {ratio:+.2f}   deviations {s1 / s2 if s2 > 0 else math.nan:.2f}", flush=True)
    return abs(ratio) <= 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kd", required=True, help="the program bench/train.training_serve")
    parser.add_argument("--data", required=True)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["SimpleNN", "LightNN"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--peer-seeds", type=int, help="default: as many")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--teacher", help="ResNet18's weights, for LightNN-distilled")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="keeps the runs; those that it holds are not done again")
    options = parser.parse_args()
    if any(n.endswith("-distilled") for n in options.networks) and not options.teacher:
        parser.error("LightNN-distilled needs --teacher FILE: ./run report --data DIR --out OUT --only ResNet18 writes OUT/weights/ResNet18-seed0.safetensors")
    torch.set_flush_denormal(True)
    torch.set_num_threads(options.threads)
    kept = pathlib.Path(options.json) if options.json else None
    runs = json.loads(kept.read_text())["runs"] if kept and kept.exists() else []
    sides = {"kd": (Kd(options.kd, options.data, options.teacher, options.threads), options.seeds),
             "pytorch": (Peer(options.data, options.teacher), options.peer_seeds or options.seeds)}
    agree = True
    for network in options.networks:
        found = {}
        for side, (trainer, seeds) in sides.items():
            found[side] = []
            for seed in range(seeds):
                key = {"side": side, "network": network, "seed": seed, "epochs": options.epochs}
                run = next((r for r in runs if key.items() <= r.items()), None)
                if run is None:
                    start = time.time()
                    loss, ce, accuracy = trainer.run(network, seed, options.epochs)
                    run = {**key, "loss": loss, "cross_entropy": ce, "accuracy": accuracy, "seconds": round(time.time() - start, 1)}
                    runs.append(run)
                    if kept:
                        kept.write_text(json.dumps({"torch": torch.__version__, "runs": runs}, indent=1) + "\n")
                    print(f"  {side} {network} seed {seed}: loss {loss:.4f}, accuracy {accuracy:.2f} % ({run['seconds']} s)", file=sys.stderr, flush=True)
                found[side].append(run)
        for what in ["loss", "accuracy"]:
            agree &= compare(f"{network}, {what}", *([r[what] for r in found[side]] for side in ("kd", "pytorch")))
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
