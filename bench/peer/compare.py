#!/usr/bin/env python3
"""kd against PyTorch on one machine, interleaved: A B A B ..., medians, and the ratio of each pair.

    python3 compare.py --kd build/release/bench/step_serve [--peer "python3 pytorch_steps.py --serve"] [--names NAME[=PEER_NAME] ...]
                       [--rounds 9] [--milliseconds 400] [--json FILE]

Both sides are processes that read "run NAME COUNT" from standard input, do COUNT steps and print the median milliseconds of one; a line that
begins with "error" says what was wrong. Each is idle while the other works. A round whose machine probe (a matrix product in the peer, before
and after) is below 90 % of the best one seen was disturbed by something else: it is done again, up to --rounds more times, and counted apart.
A machine that is
never quiet shows a low probe in the first line: compare it with the limit of the machine before believing anything below.
The printed ratio is peer / kd, the median of the rounds' ratios, with its 20th and 80th percentiles.
"""
import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys

PAIRS = ["resnet18_train", "resnet18_eval", "light_nn_cached", "light_nn_live", "light_nn_ce", "simple_nn_cached", "simple_nn_ce", "adam",
         *(f"loss_{shape}=loss_{shape}_{kind}" for shape in ("128x10", "128x1000", "4096x1000", "1024x32000", "512x128256")
           for kind in ("eager", "compile"))]
PROBE_CALLS = 5


class Server:
    def __init__(self, command):
        self.command = command
        try:
            self.process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            sys.exit(f"compare: cannot start {command!r}: {error.strerror}; build the benchmark first or pass another --kd or --peer")

    def run(self, name, count):
        """The median milliseconds of `count` steps."""
        try:
            self.process.stdin.write(f"run {name} {count}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline().strip()
        except BrokenPipeError:
            line = ""
        try:
            return float(line)
        except ValueError:
            sys.exit(f"compare: {self.command!r} answered {line!r} to 'run {name} {count}'; expected milliseconds")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def calls(server, name, milliseconds):
    server.run(name, 1)
    return max(3, min(2000, int(milliseconds / max(server.run(name, 3), 1e-6))))


def percentiles(values):
    """20th, 50th and 80th."""
    ordered = sorted(values)
    return ordered[len(ordered) // 5], statistics.median(ordered), ordered[(len(ordered) * 4) // 5 if len(ordered) > 1 else 0]


def interleave(kd, peer, name, peer_name, rounds, milliseconds, best_probe):
    """The rounds that the probe found undisturbed (all of them where there are too few), and the number of the disturbed."""
    count_kd, count_peer = calls(kd, name, milliseconds), calls(peer, peer_name, milliseconds)
    seen = []
    for attempt in range(2 * rounds):
        first = peer.run("probe", PROBE_CALLS)
        pair = kd.run(name, count_kd), peer.run(peer_name, count_peer)
        last = peer.run("probe", PROBE_CALLS)
        best_probe = min(best_probe, first, last)
        seen.append((*pair, max(first, last)))
        clean = [r for r in seen if r[2] <= best_probe / 0.9]
        if len(clean) >= rounds:
            break
    valid = len(clean) >= min(3, rounds)
    return clean if valid else seen, len(seen) - len(clean), valid, best_probe


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kd", required=True, help="kd's executable; --serve is passed to it")
    parser.add_argument("--peer", default=f"{shlex.quote(sys.executable)} {shlex.quote(str(pathlib.Path(__file__).with_name('pytorch_steps.py')))} --serve")
    parser.add_argument("--names", nargs="+", default=PAIRS, help="NAME, or NAME=PEER_NAME where the peer calls it otherwise")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--milliseconds", type=float, default=400, help="time of each side in a round")
    parser.add_argument("--json", help="also write the table here")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1; received {options.rounds}")
    kd, peer = Server(f"{options.kd} --serve"), Server(options.peer)
    best_probe = min(peer.run("probe", PROBE_CALLS) for _ in range(3))
    rows = []
    print(f"probe: {2 * 1024 ** 3 / best_probe / 1e6:.0f} GFLOP/s at best before the first round")
    print(f"{'step':34} {'kd ms':>10} {'peer ms':>10} {'peer/kd':>8} {'20%':>7} {'80%':>7} {'rounds':>6} {'disturbed':>9}")
    for pair in options.names:
        name, _, peer_name = pair.partition("=")
        peer_name = peer_name or name
        rounds, disturbed, clean, best_probe = interleave(kd, peer, name, peer_name, options.rounds, options.milliseconds, best_probe)
        low, ratio, high = percentiles([r[1] / r[0] for r in rounds])
        row = {"name": name, "peer": peer_name, "kd_ms": statistics.median(r[0] for r in rounds),
               "peer_ms": statistics.median(r[1] for r in rounds), "ratio": ratio, "ratio_p20": low, "ratio_p80": high,
               "rounds": len(rounds), "disturbed": disturbed, "valid": clean}
        rows.append(row)
        print(f"{peer_name:34} {row['kd_ms']:10.4f} {row['peer_ms']:10.4f} {ratio:7.2f}x {low:6.2f}x {high:6.2f}x "
              f"{row['rounds']:6} {disturbed:9}{'' if clean else '  NOT VALID: the machine was never quiet'}", flush=True)
    kd.close()
    peer.close()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"best_probe_ms": best_probe, "steps": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
