#!/usr/bin/env python3
"""CPU time per picture of nvrinfer with one release of ONNX Runtime and with another.

The libraries take turns over the same pictures. tests/bench/README.md says how to read the result.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import common  # noqa: E402

PICTURES = "videotestsrc pattern=ball num-buffers={count} ! video/x-raw,format=NV12,width=1280,height=720"


def seconds(launch, environment):
    """User and system seconds of a gst-launch-1.0 that runs to the end."""
    child = subprocess.Popen(
        ["gst-launch-1.0", "-q", *launch.split()], stderr=subprocess.PIPE, env=environment, text=True
    )
    # It prints errors alone, so its pipe cannot run full before it ends.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        common.fail(f"ORT_DYLIB_PATH={environment.get('ORT_DYLIB_PATH')}: {child.stderr.read().strip()}")
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", nargs="+", help="paths of libonnxruntime.so, the first is what the others are compared with")
    parser.add_argument("--model", help="default: yolox_nano_416.onnx of the shared test data")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    model = pathlib.Path(args.model) if args.model else common.data("models/yolox_nano_416.onnx")
    if not model or not model.exists():
        common.fail("no model: give --model, or NVR_TEST_DATA with models/yolox_nano_416.onnx")
    for library in args.library:
        if not pathlib.Path(library).is_file():
            common.fail(f"{library}: there is no such file")
    plugins = common.program("libgstnvr.so", "gst-plugin-nvr").parent

    folder = pathlib.Path(tempfile.mkdtemp(prefix="nvr-bench-"))
    try:
        # A registry of its own: the first start scans the plugins, which must not count.
        environment = {**os.environ, "GST_REGISTRY": str(folder / "registry.bin")}
        environment["GST_PLUGIN_PATH"] = f"{plugins}:{os.environ.get('GST_PLUGIN_PATH', '')}"

        def per_picture(library):
            """What start and loading cost drops out: a short run is taken off a long one."""
            variables = {**environment, "ORT_DYLIB_PATH": str(pathlib.Path(library).resolve())}
            few, many = args.pictures // 5, args.pictures
            launch = f"{PICTURES} ! nvrinfer model={model} threads=1 ! fakesink sync=false"
            took = [seconds(launch.format(count=count), variables) for count in (few, many)]
            bare = [seconds(f"{PICTURES} ! fakesink sync=false".format(count=count), variables) for count in (few, many)]
            return ((took[1] - took[0]) - (bare[1] - bare[0])) / (many - few) * 1e3

        per_picture(args.library[0])
        figures = {library: [] for library in args.library}
        for _ in range(args.rounds):
            for library in args.library:
                figures[library].append(per_picture(library))
        first = statistics.median(figures[args.library[0]])
        print(f"{model.stem}, 1280×720 NV12, one thread, median of {args.rounds} rounds (min to max)\n")
        print("| library | CPU ms per picture | of the first |")
        print("| --- | --- | --- |")
        for library, took in figures.items():
            middle = statistics.median(took)
            print(f"| {library} | {middle:.2f} ({min(took):.2f} to {max(took):.2f}) | {middle / first:.2f} |")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
