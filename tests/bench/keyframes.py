#!/usr/bin/env python3
"""CPU time per camera of nvrsrc: full decoding, slow watching, ingest alone, and plain rtspsrc.

Every variant watches the same cameras (1280×720, 25 fps, H.264, a keyframe every 2 s) in a gst-launch-1.0 of its own.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import common  # noqa: E402

END = "fakesink sync=false async=false"
VARIANTS = {
    "decode=all": "nvrsrc uri={uri} decode=all ! " + END,
    "decode=auto, 5 fps": "nvrsrc uri={uri} max-fps=5 ! " + END,
    "decode=auto, 1 fps": "nvrsrc uri={uri} max-fps=1 ! " + END,
    "decode=auto, 0.5 fps": "nvrsrc uri={uri} max-fps=0.5 ! " + END,
    "decode=auto, 0.1 fps": "nvrsrc uri={uri} max-fps=0.1 ! " + END,
    "decode=keyframes": "nvrsrc uri={uri} decode=keyframes ! " + END,
    "decode=none": "nvrsrc uri={uri} decode=none ! " + END,
    "decode=none, by rtspsrc": "nvrsrc uri={uri} decode=none receiver=rtspsrc ! " + END,
    "decode=all, by rtspsrc": "nvrsrc uri={uri} decode=all receiver=rtspsrc ! " + END,
    "decode=keyframes, by rtspsrc": "nvrsrc uri={uri} decode=keyframes receiver=rtspsrc ! " + END,
    "decode=none, encoded": "nvrsrc name={name} uri={uri} decode=none {name}.encoded ! " + END,
    "rtspsrc ! fakesink": "rtspsrc location={uri} latency=100 protocols=tcp ! " + END,
    "rtspsrc ! depay ! parse": "rtspsrc location={uri} latency=100 protocols=tcp ! rtph264depay ! h264parse ! " + END,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time of one variant")
    parser.add_argument("--settle", type=float, default=6.0, help="time before that: the distance of keyframes is learned")
    parser.add_argument("--repeat", type=int, default=1, help="rounds; the median of each variant counts")
    parser.add_argument("--only", help="variants, as in the table, separated by semicolons")
    parser.add_argument("--plugin-path", help="folder with libgstnvr.so; default: the release build")
    parser.add_argument("--video", help="what the cameras show; default: swdee_cars.mp4 of the shared test data")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()

    plugins = pathlib.Path(args.plugin_path) if args.plugin_path else common.program("libgstnvr.so", "gst-plugin-nvr").parent
    video = args.video or common.data("videos/swdee_cars.mp4")
    chosen = {each.strip() for each in args.only.split(";")} if args.only else set(VARIANTS)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nvr-bench-"))
    environment = {**os.environ, "GST_REGISTRY": str(folder / "registry.bin")}
    environment["GST_PLUGIN_PATH"] = f"{plugins}:{os.environ.get('GST_PLUGIN_PATH', '')}"
    figures = {name: [] for name in VARIANTS if name in chosen}
    with contextlib.ExitStack() as stack:
        facts, _, _ = stack.enter_context(common.cameras(folder, args.cameras, [video] if video else []))
        for _ in range(args.repeat):
            for name in figures:
                parts = [
                    VARIANTS[name].format(uri=camera["uri"], name=f"cam{number}")
                    for number, camera in enumerate(facts["cameras"])
                ]
                log = folder / "gst-launch.log"
                with common.process(["gst-launch-1.0", "-q", *" ".join(parts).split()], log, env=environment) as child:
                    time.sleep(args.settle)
                    before, began = common.cpu_seconds(child.pid), time.monotonic()
                    time.sleep(args.seconds)
                    used = common.cpu_seconds(child.pid) - before
                    common.alive(child, name, log)
                    figures[name].append(used / (time.monotonic() - began) / args.cameras * 100)
                    print(f"{name}: {figures[name][-1]:.2f} %", file=sys.stderr)
    middle = {name: statistics.median(values) for name, values in figures.items()}
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(middle, indent=1) + "\n")
    print(f"CPU per camera, percent of one core; {args.cameras} cameras\n")
    full, plain = middle.get("decode=all"), middle.get("rtspsrc ! fakesink")
    print("| variant | CPU | decode=all is | against rtspsrc ! fakesink |\n| --- | --- | --- | --- |")
    for name, value in middle.items():
        less = f"{full / value:.1f} times as much" if full and value else ""
        more = f"{value / plain - 1:+.0%}" if plain else ""
        print(f"| {name} | {value:.2f} % | {less} | {more} |")


if __name__ == "__main__":
    main()
