#!/usr/bin/env python3
"""kd against PyTorch on one GPU, interleaved: A B A B ..., medians, and the ratio of each pair.

    python3 compare_cuda.py --build build [--json FILE] [--seconds 50] [--precisions fp32 tf32 bf16] [--names NAME ...] [--kinds KIND ...]
                            [--rounds 7] [--milliseconds 40]

Needs torch with CUDA, and a build with CUDA (bench.train.step_serve, built here where it is missing). For each precision kd's
train.step_serve and pytorch_gpu_steps.py, whose heads say what a step includes, each in a process of its own, are asked in turn for steps in a
row; each is idle while the other works, and every second round begins with the peer. Where a row says 3.00x, kd takes a third of PyTorch's
time. PyTorch's kinds: eager, compile (torch.compile), graph and compile_graph (either recorded as one CUDA graph); kd's step is always one
graph, but for resnet18_eval and adam, which are launched one kernel after another. Arrays of a loss are the same in every call: small ones stay in
L2, on both sides.

Rows are done in their order of importance, until --seconds are over: what is left, or was being compiled then, stands in the file as not measured.
All rows take about ten minutes (--seconds 900), most of it torch.compile. The file is complete after every row. Exit code 1 where a row
failed for another reason than time.
"""
import argparse
import datetime
import json
import os
import pathlib
import select
import shlex
import statistics
import subprocess
import sys
import time

PRECISIONS = ("fp32", "tf32", "bf16")
KINDS = ("graph", "eager", "compile", "compile_graph")
TRAIN = ("light_nn_cached", "simple_nn_cached", "resnet18_train")
LOSSES = tuple(f"loss_{shape}" for shape in ("128x10", "128x1000", "4096x1000", "1024x32000", "512x128256"))
NAMES = (*TRAIN, "resnet18_eval", "adam", *LOSSES)
PEER = pathlib.Path(__file__).resolve().with_name("pytorch_gpu_steps.py")
# No row is begun when less is left.
LAST_SECONDS = 2
NO_TIME = "no time was left"


class OutOfTime(Exception):
    """The deadline came while a side was at work."""


class Failed(Exception):
    """A side says that it cannot do a step, or has ended."""


class Server:
    def __init__(self, command, deadline):
        self.command, self.deadline, self.rest = command, deadline, b""
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            sys.exit(f"compare_cuda: cannot start {shlex.join(command)}: {error.strerror}")

    def ask(self, request):
        """The line that answers `request`; whoever is still at work at the deadline is ended."""
        try:
            self.process.stdin.write(request.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{shlex.join(self.command)} has ended") from None
        while b"\n" not in self.rest:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                self.process.kill()
                raise OutOfTime(request)
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise Failed(f"{shlex.join(self.command)} ended at {request!r}")
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode(errors="replace").strip()

    def run(self, name, count):
        """Milliseconds of one of `count` steps."""
        line = self.ask(f"run {name} {count}")
        try:
            return float(line)
        except ValueError:
            raise Failed(line) from None

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended with a request unread
        try:
            self.process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def plan(precisions, names, kinds):
    """(precision, name, kind) of all rows, the most telling first: what compiles quickly before what takes a minute."""
    rows = [(p, n, k) for k in ("graph", "eager") for n in (*TRAIN, "resnet18_eval") for p in PRECISIONS]
    rows += [("fp32", n, k) for k in ("eager", "graph") for n in (*LOSSES, "adam")]
    rows += [("fp32", n, "compile") for n in LOSSES]
    rows += [(p, n, k) for n in TRAIN for p in reversed(PRECISIONS) for k in ("compile", "compile_graph")]
    rows += [("fp32", n, "compile_graph") for n in LOSSES]
    rows += [(p, "resnet18_eval", k) for p in reversed(PRECISIONS) for k in ("compile", "compile_graph")]
    return [r for r in rows if r[0] in precisions and r[1] in names and r[2] in kinds]


def calls(server, name, milliseconds):
    """How many steps take about that long; the first builds the step."""
    server.run(name, 1)
    return max(5, min(5000, int(milliseconds / max(server.run(name, 10), 1e-6))))


def percentiles(values):
    """20th, 50th and 80th."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[round(0.2 * last)], statistics.median(ordered), ordered[round(0.8 * last)]


def interleave(kd, peer, name, kind, rounds, milliseconds):
    peer_name = f"{name}_{kind}"
    counts = calls(kd, name, milliseconds), calls(peer, peer_name, milliseconds)
    pairs = []
    for attempt in range(rounds):
        if attempt % 2 == 0:
            ours = kd.run(name, counts[0])
            theirs = peer.run(peer_name, counts[1])
        else:
            theirs = peer.run(peer_name, counts[1])
            ours = kd.run(name, counts[0])
        pairs.append((ours, theirs))
    row = {}
    for what, values in (("kd_ms", [p[0] for p in pairs]), ("peer_ms", [p[1] for p in pairs]), ("ratio", [p[1] / p[0] for p in pairs])):
        row[f"{what}_p20"], row[what], row[f"{what}_p80"] = percentiles(values)
    return row | {"rounds": rounds, "kd_steps": counts[0], "peer_steps": counts[1]}


def gpu_state():
    """Name, driver and clocks, as nvidia-smi has them; empty where it cannot be asked."""
    fields = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu"
    try:
        answer = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = answer.stdout.strip().splitlines()
    return dict(zip(fields.split(","), (v.strip() for v in lines[0].split(",")))) if answer.returncode == 0 and lines else {}


def step_server(build):
    """kd's program, built where it is missing."""
    program = pathlib.Path(build).resolve() / "bench" / "train.step_serve"
    if not program.exists():
        subprocess.run(["cmake", "--build", build, "--target", "bench.train.step_serve", "--parallel"], check=False)
    if not program.exists():
        sys.exit(f"compare_cuda: there is no {program}: configure with -DKD_BUILD_BENCH=ON -DKD_CUDA=ON and build bench.train.step_serve")
    return program


def write(path, result):
    if path:
        file = pathlib.Path(path)
        part = file.with_name(file.name + ".part")
        part.write_text(json.dumps(result, indent=1) + "\n")
        part.replace(file)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, help="build folder of a build with CUDA")
    parser.add_argument("--json", help="also write the table here")
    parser.add_argument("--seconds", type=float, default=50, help="for everything but building (default: 50, as ./run gpu allows)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--milliseconds", type=float, default=40, help="time of each side in a round")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1; received {options.rounds}")
    return options


def compare(options, program, deadline, result):
    """Fills result["steps"] and result["not_measured"]; returns the number of rows that failed."""
    rows = plan(options.precisions, options.names, options.kinds)
    needed = [p for p in PRECISIONS if any(r[0] == p for r in rows)]
    # All at once: they take seconds to begin.
    sides = {p: (Server([str(program), "--device", "cuda", "--precision", p], deadline),
                 Server([sys.executable, str(PEER), "--precision", p], deadline)) for p in needed}
    failures = 0
    try:
        for p in needed:
            result["peers"][p] = json.loads(sides[p][1].ask("info"))
        print(f"{next(iter(result['peers'].values()), {})}, driver {result['gpu_before'].get('driver_version', 'unknown')}")
        print(f"{'step':18} {'precision':9} {'peer':14} {'kd ms':>9} {'20%':>9} {'80%':>9} {'peer ms':>9} {'20%':>9} {'80%':>9} {'peer/kd':>8} {'20%':>7} {'80%':>7}")
        for precision, name, kind in rows:
            title = {"name": name, "precision": precision, "peer": kind}
            if deadline - time.monotonic() < LAST_SECONDS:
                result["not_measured"].append(title | {"reason": NO_TIME})
                continue
            try:
                row = interleave(*sides[precision], name, kind, options.rounds, options.milliseconds)
            except OutOfTime:
                result["not_measured"].append(title | {"reason": NO_TIME})
                continue
            except Failed as error:
                failures += 1
                result["not_measured"].append(title | {"reason": str(error)})
                print(f"{name:18} {precision:9} {kind:14} {error}", flush=True)
                continue
            result["steps"].append(title | row)
            times = " ".join(f"{row[k]:9.4f}" for k in ("kd_ms", "kd_ms_p20", "kd_ms_p80", "peer_ms", "peer_ms_p20", "peer_ms_p80"))
            print(f"{name:18} {precision:9} {kind:14} {times} {row['ratio']:7.2f}x {row['ratio_p20']:6.2f}x {row['ratio_p80']:6.2f}x", flush=True)
            write(options.json, result)
    except (OutOfTime, Failed) as error:
        failures += 1
        print(f"compare_cuda: PyTorch did not begin: {error}", file=sys.stderr)
    finally:
        for pair in sides.values():
            for server in pair:
                server.close()
    return failures


def main():
    options = arguments()
    program = step_server(options.build)
    deadline = time.monotonic() + options.seconds
    result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "command": shlex.join(sys.argv),
              "gpu_before": gpu_state(), "peers": {}, "steps": [], "not_measured": []}
    failures = compare(options, program, deadline, result)
    result["gpu_after"] = gpu_state()
    write(options.json, result)
    late = [r for r in result["not_measured"] if r["reason"] == NO_TIME]
    if late:
        print(f"not measured, {len(late)} rows, the time was over: " + ", ".join(f"{r['name']} {r['precision']} {r['peer']}" for r in late))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
