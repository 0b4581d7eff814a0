#!/usr/bin/env python3
"""A long run of nvr-launch: is its memory flat, does every camera keep its rate?

Samples memory, threads, descriptors and events at an interval and prints a markdown table of windows.
"""

import argparse
import collections
import contextlib
import pathlib
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import common  # noqa: E402


class Counter:
    """Counts events per camera without keeping them: the measuring program must be flat itself."""

    def __init__(self, port):
        import paho.mqtt.client as mqtt

        self.lock, self.counts = threading.Lock(), collections.Counter()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_message = self.receive
        self.client.on_connect = lambda client, *_: client.subscribe("nvr/detections/+")
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def receive(self, _client, _data, message):
        with self.lock:
            self.counts[int(message.topic.rsplit("/", 1)[1])] += 1

    def take(self):
        with self.lock:
            counts, self.counts = self.counts, collections.Counter()
        return counts


def sample(pid):
    threads = len(list(pathlib.Path(f"/proc/{pid}/task").iterdir()))
    descriptors = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
    return common.memory(pid)[0], threads, descriptors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--fps", type=float, default=5.0, help="analysed frames per second and camera")
    parser.add_argument("--camera-fps", type=int, default=25, help="frames per second that a camera sends")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--window", type=float, default=300.0, help="seconds per line of the table")
    parser.add_argument("--warm-up", type=float, default=120.0, help="seconds before the first window")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--program", help="nvr-launch to run instead of the release build")
    args = parser.parse_args()

    folder = pathlib.Path(tempfile.mkdtemp(prefix="nvr-soak-"))
    print(f"logs: {folder}", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        port, _ = stack.enter_context(common.broker(folder))
        facts, _, _ = stack.enter_context(common.cameras(folder, args.cameras, common.videos(None), args.camera_fps))
        counter = Counter(port)
        stack.callback(counter.client.loop_stop)
        binary = args.program or common.program("nvr-launch", "nvr-launch")
        command = [binary, "processor", "--streams", f"0-{args.cameras - 1}", "--model", args.model]
        command += ["--stream-server", f"rtsp://127.0.0.1:{facts['port']}", "--max-fps", args.fps]
        command += ["--broker", f"mqtt://127.0.0.1:{port}"]
        child = stack.enter_context(common.process(command, folder / "nvr-launch.log"))
        print("| minute | RSS MB, median (min–max) | threads | descriptors | events/s per camera, min–max |", flush=True)
        print("| --- | --- | --- | --- | --- |", flush=True)
        began, windows = time.time(), []
        time.sleep(args.warm_up)
        counter.take()
        while time.time() - began < args.minutes * 60:
            start, samples = time.time(), []
            while time.time() - start < args.window:
                common.alive(child, "nvr-launch", folder / "nvr-launch.log")
                samples.append(sample(child.pid))
                time.sleep(5)
            elapsed, counts = time.time() - start, counter.take()
            rates = [counts[source] / elapsed for source in range(args.cameras)]
            resident = [each[0] for each in samples]
            windows.append(statistics.median(resident))
            print(
                f"| {(time.time() - began) / 60:.0f} | {windows[-1]:.1f} ({min(resident):.1f}–{max(resident):.1f}) "
                f"| {max(each[1] for each in samples)} | {max(each[2] for each in samples)} "
                f"| {min(rates):.2f}–{max(rates):.2f} |",
                flush=True,
            )
        print(f"\ngrowth from the first window to the last: {(windows[-1] / windows[0] - 1) * 100:+.1f} %")


if __name__ == "__main__":
    main()
