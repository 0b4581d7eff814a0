#!/usr/bin/env python3
"""CPU time per picture of a wall: nvrcompositor against GStreamer's compositor with a textoverlay for each tile.

Both show the same twelve cameras in the same places of the same wall, and take turns in one run. What the sources
cost by themselves is measured too and taken off. tests/bench/README.md says how to read the result.

With --backend the same wall is drawn by nvrcompositor alone, by the processor and by that backend, from pictures in
system memory to a wall in system memory.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import common  # noqa: E402

WIDTH, HEIGHT, FPS = 1920, 1080, 25
COLUMNS = 4


def cameras(count, seconds, end):
    """Live cameras without a decoder, each followed by `end`. Their pictures cost nothing to make: one, again and again."""
    source = (
        "videotestsrc pattern=smpte num-buffers=1 ! video/x-raw,format=I420,width=640,height=360 ! "
        f"imagefreeze is-live=true num-buffers={seconds * FPS} ! video/x-raw,framerate={FPS}/1"
    )
    return " ".join(f"{source} ! {end(n)}" for n in range(count))


def tile(n, count):
    """Where the picture of camera n is, 16:9, in equal cells."""
    rows = -(-count // COLUMNS)
    width, height = WIDTH // COLUMNS, HEIGHT // rows
    return n % COLUMNS * width, n // COLUMNS * height + (height - width * 9 // 16) // 2, width, width * 9 // 16


SINK = f"video/x-raw,width={WIDTH},height={HEIGHT},framerate={FPS}/1 ! fpsdisplaysink text-overlay=false video-sink=fakesink"


def ours(count, seconds, backend):
    """The wall of nvrcompositor."""
    labels = " ".join(f"sink_{n}::label=camera-{n}" for n in range(count))
    return (
        f"nvrcompositor name=wall backend={backend} spacing=0 columns={COLUMNS} {labels} ! {SINK} "
        + cameras(count, seconds, lambda n: f"wall.sink_{n}")
    )


def graphs(count, seconds, backend):
    sources = cameras(count, seconds, lambda n: "fakesink sync=true")
    if backend:
        return {"sources": sources, "cpu": ours(count, seconds, "cpu"), backend: ours(count, seconds, backend)}

    def placed(n):
        x, y, width, height = tile(n, count)
        return f"sink_{n}::xpos={x} sink_{n}::ypos={y} sink_{n}::width={width} sink_{n}::height={height}"

    plain = "compositor name=wall background=black " + " ".join(placed(n) for n in range(count))
    return {
        "sources": sources,
        "compositor": f"{plain} ! {SINK} "
        + cameras(
            count,
            seconds,
            lambda n: f"textoverlay text=camera-{n} valignment=bottom halignment=left shaded-background=true ! wall.sink_{n}",
        ),
        "nvrcompositor": ours(count, seconds, "cpu"),
    }


def run(launch, environment, seconds):
    """User and system seconds, and the number of pictures that came out."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(
            ["gst-launch-1.0", "-v", *launch.split()], stdout=out, stderr=subprocess.STDOUT, env=environment
        )
        timer = threading.Timer(seconds + 30, child.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            if child.returncode is None:
                child.kill()
                child.wait()
        out.seek(0)
        text = out.read()
    if child.returncode:
        common.fail(f"gst-launch-1.0 ended with {child.returncode}:\n{text[-2000:]}")
    rendered = [int(n) for n in re.findall(r"rendered: (\d+), dropped: \d+", text)]
    rates = [float(rate) for rate in re.findall(r"current: ([\d.]+)", text)]
    return usage.ru_utime + usage.ru_stime, max(rendered, default=0), rates[2:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--backend", choices=["gl", "va", "cuda"], help="compare this backend with cpu")
    options = parser.parse_args()
    plugin = common.program("libgstnvr.so", "gst-plugin-nvr")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "libgstnvr.so").symlink_to(plugin.resolve())
        path = ":".join(filter(None, [folder, os.environ.get("GST_PLUGIN_PATH")]))
        environment = dict(
            os.environ, GST_PLUGIN_PATH=path, GST_REGISTRY=f"{folder}/registry.bin", LC_ALL="C"
        )
        if options.backend == "gl" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            environment.setdefault("GST_GL_WINDOW", "egl-device")
        for element in ("nvrcompositor",) if options.backend else ("nvrcompositor", "compositor", "textoverlay"):
            if subprocess.run(["gst-inspect-1.0", element], env=environment, capture_output=True, check=False).returncode:
                common.fail(f"there is no {element}; textoverlay is in the package gstreamer1.0-x")
        for _ in range(options.rounds):
            for name, launch in graphs(options.cameras, options.seconds, options.backend).items():
                cpu, frames, rates = run(launch, environment, options.seconds)
                results.setdefault(name, []).append((cpu, frames, rates))
    expected = options.seconds * FPS
    # The quietest round of each: what disturbs only adds.
    sources = min(cpu for cpu, _, _ in results["sources"]) / expected * 1000
    print(f"{options.cameras} cameras of 640x360 at {FPS}/s on a wall of {WIDTH}x{HEIGHT}")
    print(f"sources alone   {sources:6.2f} ms of CPU per picture")
    summary = {"sources_ms": sources}
    first, second = ("cpu", options.backend) if options.backend else ("compositor", "nvrcompositor")
    for name in (first, second):
        best = min(results[name], key=lambda result: result[0] / max(result[1], 1))
        cost = best[0] / max(best[1], 1) * 1000 - sources
        slowest = min((min(rates) for _, _, rates in results[name] if rates), default=float("nan"))
        print(f"{name:<15} {cost:6.2f} ms, {best[1]} of {expected} pictures, slowest half second {slowest:.1f}/s")
        summary[name] = {"ms": cost, "frames": best[1], "slowest_fps": slowest}
    summary["ratio"] = summary[second]["ms"] / summary[first]["ms"]
    print(f"ratio           {summary['ratio']:6.2f}")
    if options.json:
        options.json.write_text(json.dumps(summary, indent=1) + "\n")
    if not options.backend and summary["ratio"] > 0.5:
        common.fail("the wall costs more than half of what the plain compositor costs")


if __name__ == "__main__":
    main()
