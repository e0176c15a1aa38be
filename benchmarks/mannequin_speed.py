"""Speed of the mannequin world: samples per second and core, every modality and the counterfactual, encoded.

    python benchmarks/mannequin_speed.py [--json FILE]

Each sample is rendered and all of its files are encoded in memory, in one process and one thread.  CPU
time is what counts, so other programs disturb little.  Exits 1 below TARGET samples per second at 128x96.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from drape.mannequin.dataset import sample_files
from drape.mannequin.sample import make_sample

TARGET = 10.0
RUNS = (((64, 48), 40), ((128, 96), 40), ((256, 192), 12), ((512, 384), 4), ((1024, 768), 2))


def measure(size: tuple[int, int], count: int) -> dict[str, float | str]:
    """Samples and kilobytes per second of CPU time after one sample that warms the caches."""
    sum(len(content) for _, content in sample_files(make_sample(0, 0, size), "warm"))
    started, wall, written = time.process_time(), time.perf_counter(), 0
    for index in range(1, count + 1):
        written += sum(len(content) for _, content in sample_files(make_sample(0, index, size), f"{index:05d}_00"))
    seconds = time.process_time() - started
    return {
        "size": f"{size[0]}x{size[1]}",
        "samples_per_cpu_second": round(count / seconds, 2),
        "samples_per_wall_second": round(count / (time.perf_counter() - wall), 2),
        "kib_per_sample": round(written / count / 1024, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    rows = [measure(size, count) for size, count in RUNS]
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}, indent=1)
        )
    print(f"{'size':>9}  {'per CPU s':>9}  {'per wall s':>10}  {'KiB each':>8}")
    for row in rows:
        print(
            "{size:>9}  {samples_per_cpu_second:>9}  {samples_per_wall_second:>10}  {kib_per_sample:>8}".format(**row)
        )
    speed = float(next(row for row in rows if row["size"] == "128x96")["samples_per_cpu_second"])
    print(
        f"{'ok' if speed >= TARGET else 'FAIL'}: {speed:.1f} samples per second and core at 128x96, target {TARGET:g}"
    )
    return 0 if speed >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
