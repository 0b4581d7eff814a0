#!/usr/bin/env python3
"""CPU time per analysed frame: our pipeline against decoding plus raw single-thread ONNX Runtime.

All three parts see the same frames and take turns in one run. tests/bench/README.md says how to read the result.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
import common  # noqa: E402

DECODE = "filesrc location={clip} ! qtdemux ! h264parse ! avdec_h264 max-threads=1"
OURS = (
    "nvrinfer model={model} threads=1 ! "
    "nvrmqttsink source-id=0 broker={broker} topic-prefix=overhead sync=false"
)


def encode(video, frames, clip):
    """The first frames of a video as 1280×720 H.264 without B-frames."""
    source = f"filesrc location={video} ! decodebin" if video else "videotestsrc pattern=ball"
    launch = (
        f"{source} ! videoconvert ! videoscale ! video/x-raw,format=I420,width=1280,height=720,"
        f"pixel-aspect-ratio=1/1 ! identity eos-after={frames} ! x264enc bitrate=2000 key-int-max=50 bframes=0 "
        f"speed-preset=veryfast ! video/x-h264,profile=main ! h264parse ! mp4mux ! filesink location={clip}"
    )
    done = subprocess.run(["gst-launch-1.0", "-q", *launch.split()], capture_output=True, text=True, timeout=300)
    if done.returncode or not clip.exists():
        common.fail(f"{video or 'the test picture'} could not be encoded: {done.stderr.strip()}")


def child_cpu(launch, environment, log, timeout):
    """User and system seconds of a gst-launch-1.0 that runs to the end."""
    with open(log, "wb") as out:
        child = subprocess.Popen(["gst-launch-1.0", "-q", *launch.split()], stdout=out, stderr=out, env=environment)
        timer = threading.Timer(timeout, child.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            if child.returncode is None:
                child.kill()
                child.wait()
    if child.returncode:
        common.alive(child, "gst-launch-1.0", log)
    return usage.ru_utime + usage.ru_stime


class Counter:
    """Counts events of the runs."""

    def __init__(self, port):
        import paho.mqtt.client as mqtt

        self.events = 0
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_message = self.receive
        self.client.on_connect = lambda client, *_: client.subscribe("overhead/detections/0")
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def receive(self, *_):
        self.events += 1

    def settled(self):
        """The count once nothing has come for 300 ms."""
        last = -1
        while last != self.events:
            last = self.events
            time.sleep(0.3)
        self.events = 0
        return last

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class Raw:
    """ONNX Runtime alone, one thread, over the clip's frames as the model takes them."""

    def __init__(self, model, clip):
        import cv2
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        node = self.session.get_inputs()[0]
        self.name, (height, width) = node.name, node.shape[2:]
        if node.type != "tensor(float)" or not isinstance(width, int):
            common.fail(f"{model}: the raw part feeds float32 N×3×H×W of fixed size, this takes {node.type} {node.shape}")
        self.open = lambda: cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        capture, self.tensors = self.open(), []
        while True:
            good, image = capture.read()
            if not good:
                break
            ratio = min(height / image.shape[0], width / image.shape[1])
            size = int(image.shape[1] * ratio), int(image.shape[0] * ratio)
            canvas = np.full((height, width, 3), 114, np.uint8)
            canvas[: size[1], : size[0]] = cv2.resize(image, size)
            self.tensors.append(np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32))
        for tensor in self.tensors[:5]:
            self.session.run(None, {self.name: tensor})

    def per_frame(self):
        # All threads of this process: a pool of ONNX Runtime that spins would show.
        before = time.process_time()
        for tensor in self.tensors:
            self.session.run(None, {self.name: tensor})
        return (time.process_time() - before) / len(self.tensors)

    def taking_turns(self):
        """Inference, and by how much decoding grows, when they take turns in one thread: each finds the processor's
        caches full of what the other left there. What is above that is the pipeline's own."""
        capture, alone = self.open(), time.thread_time()
        for _ in self.tensors:
            capture.grab()
        alone = time.thread_time() - alone
        capture, decoding, inference = self.open(), 0.0, 0.0
        for tensor in self.tensors:
            start = time.thread_time()
            capture.grab()
            middle = time.thread_time()
            self.session.run(None, {self.name: tensor})
            decoding += middle - start
            inference += time.thread_time() - middle
        return inference / len(self.tensors), decoding / alone


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: yolox_nano_416.onnx of the shared test data")
    parser.add_argument("--video", help="at least --frames long; default: swdee_cars.mp4 of the shared test data")
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=120.0, help="longest time of one part, seconds")
    parser.add_argument("--plugin-path", help="folder with libgstnvr.so; default: the release build")
    parser.add_argument("--decode", default=DECODE, help="launch text that decodes {clip}")
    parser.add_argument("--ours", default=OURS, help="what follows the decoder; {model} {broker}")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()

    model = pathlib.Path(args.model) if args.model else common.data("models/yolox_nano_416.onnx")
    if not model or not model.exists():
        common.fail("no model: give --model, or NVR_TEST_DATA with models/yolox_nano_416.onnx")
    video = pathlib.Path(args.video) if args.video else common.data("videos/swdee_cars.mp4")
    plugins = pathlib.Path(args.plugin_path) if args.plugin_path else common.program("libgstnvr.so", "gst-plugin-nvr").parent

    folder = pathlib.Path(tempfile.mkdtemp(prefix="nvr-bench-"))
    try:
        short, long = folder / "short.mp4", folder / "long.mp4"
        encode(video, args.frames // 5, short)
        encode(video, args.frames, long)
        raw = Raw(model, long)
        # A registry of its own: the first start scans the plugins, which must not count.
        environment = {**os.environ, "GST_REGISTRY": str(folder / "registry.bin")}
        environment["GST_PLUGIN_PATH"] = f"{plugins}:{os.environ.get('GST_PLUGIN_PATH', '')}"
        with common.broker(folder) as (port, _):
            counter = Counter(port)
            tail = args.ours.format(model=model, broker=f"mqtt://127.0.0.1:{port}")

            def cpu(clip, end):
                launch = f"{args.decode.format(clip=clip)} ! {end}"
                return child_cpu(launch, environment, folder / "gst-launch.log", args.timeout)

            import cv2

            count = [int(cv2.VideoCapture(str(clip)).get(cv2.CAP_PROP_FRAME_COUNT)) for clip in (short, long)]
            cpu(short, tail)
            counter.settled()
            rounds = []
            for number in range(args.rounds):
                decode = (cpu(long, "fakesink sync=false") - cpu(short, "fakesink sync=false")) / (count[1] - count[0])
                first = cpu(short, tail)
                few = counter.settled()
                second = cpu(long, tail)
                many = counter.settled()
                if many - few < (count[1] - count[0]) / 2:
                    common.fail(f"{few} and {many} events came of {count[0]} and {count[1]} frames: too few to judge")
                ours = (second - first) / (many - few)
                inference = raw.per_frame()
                in_turns, slowed = raw.taking_turns()
                rounds.append(
                    {
                        "decode_ms": decode * 1e3,
                        "inference_ms": inference * 1e3,
                        "inference_in_turns_ms": in_turns * 1e3,
                        "decode_in_turns_ms": decode * slowed * 1e3,
                        "ours_ms": ours * 1e3,
                        "analysed": (many - few) / (count[1] - count[0]),
                        "overhead": ours / (decode + inference) - 1,
                        "overhead_in_turns": ours / (decode * slowed + in_turns) - 1,
                    }
                )
                print(f"round {number + 1}: {json.dumps({k: round(v, 3) for k, v in rounds[-1].items()})}", file=sys.stderr)
            counter.close()
        middle = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps({"rounds": rounds, "median": middle}, indent=1) + "\n")
        print(f"CPU milliseconds per frame, 1280×720, {model.stem}, median of {args.rounds} rounds\n")
        print("| | decode | ONNX Runtime | limit | ours | overhead, median (min to max) |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, end in (("each by itself", ""), ("taking turns", "_in_turns")):
            decode, inference = middle[f"decode{end}_ms"], middle[f"inference{end}_ms"]
            over = [each[f"overhead{end}"] for each in rounds]
            print(
                f"| {name} | {decode:.2f} | {inference:.2f} | {decode + inference:.2f} | {middle['ours_ms']:.2f} "
                f"| {statistics.median(over):+.1%} ({min(over):+.1%} to {max(over):+.1%}) |"
            )
        print(f"\n{middle['analysed']:.1%} of the frames were analysed.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
