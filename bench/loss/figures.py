#!/usr/bin/env python3
"""Draws what the benchmarks of the losses say: python3 bench/loss/figures.py OUT CLASSES.json LOSSES.json (needs gnuplot).

CLASSES.json   of build/bench/loss.distillation_bench --benchmark_filter=distillation_classes --benchmark_format=json
LOSSES.json    of build/bench/loss.every_loss_bench --benchmark_format=json
OUT/classes.png: nanoseconds for one class of one row against the number of classes; OUT/losses.png: every loss beside
forward KL with cross entropy, at three shapes. With --benchmark_repetitions=N each is the median.
"""
import json
import pathlib
import re
import statistics
import subprocess
import sys


def times(path):
    """{name: median nanoseconds}, in the order of the file."""
    runs = {}
    scale = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}
    for run in json.loads(pathlib.Path(path).read_text())["benchmarks"]:
        if run.get("run_type", "iteration") == "iteration" and not run.get("error_occurred"):
            name = run["name"].removesuffix("/real_time")
            runs.setdefault(name, []).append(run["real_time"] * scale[run["time_unit"]])
    if not runs:
        sys.exit(f"{path} holds no benchmark")
    return {name: statistics.median(of) for name, of in runs.items()}


def gnuplot(script):
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def draw_classes(path, out):
    rows = []
    for name, ns in times(path).items():
        found = re.fullmatch(r"distillation_classes/cpu/(\d+)", name)
        if found:
            classes = int(found[1])
            rows.append((classes, ns / (max(16, (4 << 20) // classes) * classes)))
    if not rows:
        sys.exit(f"{path} holds no distillation_classes")
    data = "\n".join(f"{classes} {ns:.5f}" for classes, ns in sorted(rows))
    gnuplot(f"""
set terminal pngcairo size 900,420 font "sans,11"
set output "{out}/classes.png"
set logscale xy
set grid
set key off
set xlabel "classes"
set ylabel "ns for one class of one row"
set title "kd's distillation loss and its gradient, about 4 million logits"
$data << EOD
{data}
EOD
plot $data using 1:2 with linespoints pt 7 lw 2
""")


def draw_losses(path, out):
    table, shapes = {}, []
    for name, ns in times(path).items():
        found = re.fullmatch(r"(.+)/cpu/(\d+x\d+)", name)
        if found:
            table.setdefault(found[1], {})[found[2]] = ns
            if found[2] not in shapes:
                shapes.append(found[2])
    usual = table.get("forward_kl+cross_entropy")
    if not usual:
        sys.exit(f"{path} holds no forward_kl+cross_entropy")
    names = sorted(table, key=lambda name: table[name][shapes[-1]])
    data = "\n".join(
        f'"{name.replace("_", " ")}" ' + " ".join(f"{table[name][shape] / usual[shape]:.4f}" for shape in shapes)
        for name in names)
    bars = ", ".join(f'$data using {i + 2}:xtic(1) title "{shape}"' for i, shape in enumerate(shapes))
    gnuplot(f"""
set terminal pngcairo size 1200,640 font "sans,11"
set output "{out}/losses.png"
set style data histograms
set style fill solid 0.8
set logscale y
set grid ytics
set xtics rotate by -35 left
set rmargin 16
set bmargin 12
set key top left
set ylabel "time, forward KL with cross entropy = 1"
$data << EOD
{data}
EOD
plot {bars}
""")


if len(sys.argv) != 4:
    sys.exit(__doc__)
out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
draw_classes(sys.argv[2], out)
draw_losses(sys.argv[3], out)
