"""`python -m experiments.benchmarks [NAME …] [--quick]`: prints the tables of speed."""

import argparse
import importlib
import os
import platform
import time

from experiments.benchmarks.harness import core, load_line
from experiments.command_line import run_command

NAMES = ("training_step", "decoding", "attention", "overhead")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks",
        description="Speed against peers, side by side: interleaved, one core and one thread each, medians.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter lengths")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; it must be one of {', '.join(NAMES)}")
    place = f"core {core()}" if core() else "cores that cannot be chosen on this system"
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; contenders take turns on {place}")
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"experiments.benchmarks.{name}")
        print(f"\n{name}: before, {load_line()}", flush=True)
        started = time.monotonic()
        for table in module.measure(module.QUICK if arguments.quick else module.Size()):
            print(f"\n{table}", flush=True)
        print(f"\n{name}: after {time.monotonic() - started:.0f} s, {load_line()}", flush=True)


if __name__ == "__main__":
    run_command(main)
