#!/usr/bin/env python3
"""CPU time per analysed frame: our pipeline against decoding plus raw single-thread ONNX Runtime.

All parts see the same frames and take turns of a tenth of a second. tests/bench/README.md says how to read the result.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
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


class Child:
    """Runs gst-launch-1.0 after gst-launch-1.0, a slice of time at a time; what does not run is stopped."""

    def __init__(self, launches, environment, log, timeout):
        self.launches, self.environment, self.log, self.timeout = launches, environment, log, timeout
        self.child, self.seconds, self.ran = None, [], 0.0

    def slice(self, seconds):
        """Lets the running one go on for a moment, or starts the next; the user and system seconds of each that ended
        are kept."""
        if self.child is None:
            with open(self.log, "wb") as out:
                command = ["gst-launch-1.0", "-q", *next(self.launches).split()]
                self.child, self.ran = subprocess.Popen(command, stdout=out, stderr=out, env=self.environment), 0.0
        else:
            os.kill(self.child.pid, signal.SIGCONT)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status, usage = os.wait4(self.child.pid, os.WNOHANG)
            if pid:
                self.child.returncode = os.waitstatus_to_exitcode(status)
                if self.child.returncode:
                    common.alive(self.child, "gst-launch-1.0", self.log)
                self.seconds.append(usage.ru_utime + usage.ru_stime)
                self.child = None
                return
            time.sleep(0.002)
        os.kill(self.child.pid, signal.SIGSTOP)
        self.ran += seconds
        if self.ran > self.timeout:
            child = self.child
            self.close()
            common.alive(child, f"gst-launch-1.0, with no end of its own within {self.timeout:.0f} s,", self.log)

    def close(self):
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None

    def longer(self):
        """By how much each second one took longer than the one before it."""
        return [long - short for short, long in zip(self.seconds[::2], self.seconds[1::2])]


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
        self.forget()

    def forget(self):
        """Begins anew."""
        self.alone, self.in_turns, self.decoding = [0.0, 0], [0.0, 0], [0.0, 0]
        self.decoding_alone, self.capture, self.next = [0.0, 0], None, 0

    def slice(self, seconds):
        """Inference alone for a moment, and then in turns with decoding in one thread, where each finds the
        processor's caches full of what the other left there. What is above that is the pipeline's own."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.run(self.alone)
        while time.monotonic() < end + seconds:
            self.grab(self.decoding_alone)
        while time.monotonic() < end + 2 * seconds:
            self.grab(self.decoding)
            self.run(self.in_turns)

    def run(self, to):
        tensor = self.tensors[self.next % len(self.tensors)]
        self.next += 1
        # All threads of this process: a pool of ONNX Runtime that spins would show.
        start = time.process_time()
        self.session.run(None, {self.name: tensor})
        to[0] += time.process_time() - start
        to[1] += 1

    def grab(self, to):
        if self.capture is None:
            self.capture = self.open()
        start = time.thread_time()
        good = self.capture.grab()
        if not good:
            self.capture = None
            return
        to[0] += time.thread_time() - start
        to[1] += 1

    def figures(self):
        """Seconds of one inference alone and in turns, and by how much decoding grew."""
        each = [seconds / max(count, 1) for seconds, count in (self.alone, self.in_turns, self.decoding, self.decoding_alone)]
        return each[0], each[1], each[2] / each[3]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: yolox_nano_416.onnx of the shared test data")
    parser.add_argument("--video", help="at least --frames long; default: swdee_cars.mp4 of the shared test data")
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice", type=float, default=0.1, help="length of a turn, seconds")
    parser.add_argument("--timeout", type=float, default=120.0, help="longest time of one gst-launch-1.0, seconds")
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

            def launches(end):
                """The short clip and the long one, for ever."""
                for clip in itertools.cycle((short, long)):
                    yield f"{args.decode.format(clip=clip)} ! {end}"

            def child(end, log="ours.log"):
                return Child(launches(end), environment, folder / log, args.timeout)

            import cv2

            count = [int(cv2.VideoCapture(str(clip)).get(cv2.CAP_PROP_FRAME_COUNT)) for clip in (short, long)]
            frames = count[1] - count[0]
            with contextlib.closing(child(tail)) as first:
                while not first.seconds:
                    first.slice(args.slice)
            counter.settled()
            rounds = []
            for number in range(args.rounds):
                raw.forget()
                ours, decoder = child(tail), child("fakesink sync=false", "decoder.log")
                with contextlib.closing(ours), contextlib.closing(decoder):
                    events = []
                    while len(events) < 2 or not decoder.longer():
                        # What has seen both clips would begin anew.
                        for part in (ours, decoder, raw) if len(events) < 2 else (decoder, raw):
                            part.slice(args.slice)
                        if len(ours.seconds) > len(events):
                            events.append(counter.settled())
                    decode = statistics.mean(decoder.longer()) / frames
                    if events[1] - events[0] < frames / 2:
                        common.fail(f"{events} events came of {count} frames: too few to judge")
                    analysed = events[1] - events[0]
                    mine = ours.longer()[0] / analysed
                inference, in_turns, slowed = raw.figures()
                rounds.append(
                    {
                        "decode_ms": decode * 1e3,
                        "inference_ms": inference * 1e3,
                        "inference_in_turns_ms": in_turns * 1e3,
                        "decode_in_turns_ms": decode * slowed * 1e3,
                        "ours_ms": mine * 1e3,
                        "analysed": analysed / frames,
                        "overhead": mine / (decode + inference) - 1,
                        "overhead_in_turns": mine / (decode * slowed + in_turns) - 1,
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
