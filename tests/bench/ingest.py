#!/usr/bin/env python3
"""What receiving costs, counted and not timed: system calls, context switches and threads of each receiver of nvrsrc.

Every variant watches the same cameras in a gst-launch-1.0 of its own. Counts do not depend on the speed of the machine
or on how the plugin was built.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import common  # noqa: E402

END = "fakesink sync=false async=false"
PIPELINES = {
    "decode=none": "nvrsrc uri={uri} receiver={receiver} decode=none ! " + END,
    "decode=keyframes": "nvrsrc uri={uri} receiver={receiver} decode=keyframes ! " + END,
    "decode=all": "nvrsrc uri={uri} receiver={receiver} decode=all ! " + END,
}
ROW = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$")


def switches(pid):
    """Context switches of all threads, voluntary and forced; and how many threads there are."""
    total, threads = 0, 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            text = (task / "status").read_text()
            total += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", text)))
            threads += 1
    return total, threads


def calls(pid, seconds, log):
    """System calls of all threads in that time, by name."""
    command = ["strace", "-c", "-f", "-q", "-o", str(log), "-p", str(pid)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tracer:
        time.sleep(seconds)
        tracer.send_signal(2)
        tracer.wait(30)
    rows = (ROW.match(line) for line in log.read_text(errors="replace").splitlines())
    found = {row[2]: int(row[1]) for row in rows if row and row[2] != "total"}
    return found or common.fail(f"strace counted nothing; the end of {log} says why")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=12)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=8.0, help="counted time of one variant, twice")
    parser.add_argument("--settle", type=float, default=6.0, help="time before that")
    parser.add_argument("--receivers", default="rtspsrc,light")
    parser.add_argument("--only", help="variants, separated by semicolons")
    parser.add_argument("--video", help="what the cameras show; default: swdee_cars.mp4 of the shared test data")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    if not shutil.which("strace"):
        common.fail("strace is missing, install it with: apt-get install strace")

    plugins = common.program("libgstnvr.so", "gst-plugin-nvr").parent
    video = args.video or common.data("videos/swdee_cars.mp4")
    chosen = {each.strip() for each in args.only.split(";")} if args.only else set(PIPELINES)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nvr-bench-"))
    environment = {**os.environ, "GST_REGISTRY": str(folder / "registry.bin")}
    environment["GST_PLUGIN_PATH"] = f"{plugins}:{os.environ.get('GST_PLUGIN_PATH', '')}"
    figures = []
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        videos = [video] if video else []
        facts, _, _ = stack.enter_context(common.cameras(folder, args.cameras, videos, args.fps))
        for name in (name for name in PIPELINES if name in chosen):
            for receiver in args.receivers.split(","):
                parts = [PIPELINES[name].format(uri=camera["uri"], receiver=receiver) for camera in facts["cameras"]]
                log = folder / "gst-launch.log"
                with common.process(["gst-launch-1.0", "-q", *" ".join(parts).split()], log, env=environment) as child:
                    time.sleep(args.settle)
                    before, _ = switches(child.pid)
                    began = time.monotonic()
                    time.sleep(args.seconds)
                    after, threads = switches(child.pid)
                    frames = args.cameras * args.fps
                    switched = (after - before) / (time.monotonic() - began) / frames
                    counted = calls(child.pid, args.seconds, folder / "strace.log")
                    common.alive(child, name, log)
                each = collections.Counter({call: n / args.seconds / frames for call, n in counted.items()})
                figures.append(
                    {"variant": name, "receiver": receiver, "calls": sum(each.values()), "switches": switched}
                    | {"threads": threads, "most": dict(each.most_common(4))}
                )
                print(json.dumps(figures[-1]), file=sys.stderr)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{args.cameras} cameras at {args.fps} fps; each figure for one frame\n")
    print("| variant | receiver | system calls | context switches | threads | most of the calls |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in figures:
        most = ", ".join(f"{call} {n:.1f}" for call, n in row["most"].items())
        print(f"| {row['variant']} | {row['receiver']} | {row['calls']:.1f} | {row['switches']:.1f} | {row['threads']} | {most} |")


if __name__ == "__main__":
    main()
