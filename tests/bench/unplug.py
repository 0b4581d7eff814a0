#!/usr/bin/env python3
"""Twelve cameras, one of them unplugged: does memory stay flat, do the others lose a frame?

Runs nvr-launch against the fault lab, pulls one camera's cable for some minutes and puts it back. Every frame is
analysed, so every frame has an event, and a gap in `frame_id` is a frame that was lost on the way.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import common  # noqa: E402


class Numbers:
    """Frame numbers of the events: counts and gaps for each camera, nothing else is kept."""

    def __init__(self, port):
        import paho.mqtt.client as mqtt

        self.lock = threading.Lock()
        self.last, self.count, self.lost = {}, collections.Counter(), collections.Counter()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_message = self.receive
        self.client.on_connect = lambda client, *_: client.subscribe("nvr/detections/+")
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def receive(self, _client, _data, message):
        event = json.loads(message.payload)
        source, number = event["source_id"], event["frame_id"]
        with self.lock:
            if source in self.last:
                self.lost[source] += number - self.last[source] - 1
            self.last[source] = number
            self.count[source] += 1

    def take(self):
        """Events and lost frames since the last call."""
        with self.lock:
            taken = dict(self.count), dict(self.lost)
            self.count.clear()
            self.lost.clear()
        return taken


def clip(folder, fps, seconds=10):
    """A recording for the cameras; encoded once, so that they cost next to nothing."""
    file = folder / "clip.mp4"
    line = f"""videotestsrc pattern=ball num-buffers={fps * seconds} ! video/x-raw,width=640,height=360,framerate={fps}/1
        ! x264enc tune=zerolatency key-int-max={fps * 2} bitrate=500 ! mp4mux ! filesink location={file}"""
    done = subprocess.run(["gst-launch-1.0", "-q", *line.split()], capture_output=True, text=True, timeout=120)
    if done.returncode or not file.exists():
        common.fail(f"the clip could not be encoded (x264enc of gstreamer1.0-plugins-ugly?): {done.stderr}")
    return file


class Lab:
    """The fault lab; it ends when its standard input is told to."""

    def __init__(self, child):
        self.child = child
        line = child.stdout.readline().decode()
        found = re.search(r"rtsp://127\.0\.0\.1:(\d+)/", line)
        if not found:
            common.fail(f"the fault lab did not start: {line!r}")
        self.port = int(found[1])
        self.said = []
        threading.Thread(target=lambda: self.said.extend(child.stdout), daemon=True).start()

    def tell(self, line):
        self.child.stdin.write(f"{line}\n".encode())
        self.child.stdin.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=12)
    parser.add_argument("--unplugged", type=int, default=5, help="the camera that is unplugged")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long it is")
    parser.add_argument("--camera-fps", type=int, default=5)
    parser.add_argument("--warm-up", type=float, default=90.0, help="seconds before anything is measured")
    parser.add_argument("--window", type=float, default=60.0, help="seconds that memory is compared over")
    parser.add_argument("--limit", type=float, default=2.0, help="percent that memory may grow")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--program", help="nvr-launch to run instead of the release build")
    args = parser.parse_args()
    if args.unplugged >= args.cameras:
        common.fail("--unplugged must be one of the cameras")

    folder = pathlib.Path(tempfile.mkdtemp(prefix="nvr-unplug-"))
    print(f"logs: {folder}", file=sys.stderr)
    binary = args.program or common.program("nvr-launch", "nvr-launch")
    with contextlib.ExitStack() as stack:
        port, _ = stack.enter_context(common.broker(folder))
        command = [binary, "fault-lab", "--cameras", args.cameras, "--listen", "127.0.0.1:0"]
        command += ["--video", clip(folder, args.camera_fps)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": None}
        lab = Lab(stack.enter_context(common.process(command, folder / "unused.log", **pipes)))
        numbers = Numbers(port)
        stack.callback(numbers.client.loop_stop)
        log = folder / "nvr-launch.log"
        command = [binary, "processor", "--streams", f"0-{args.cameras - 1}", "--model", args.model, "--max-fps", "0"]
        command += ["--stream-server", f"rtsp://127.0.0.1:{lab.port}", "--broker", f"mqtt://127.0.0.1:{port}"]
        child = stack.enter_context(common.process(command, log))
        others = [source for source in range(args.cameras) if source != args.unplugged]

        print("| phase | seconds | RSS MB, median (min–max) | threads | descriptors | events of the others | lost by the others |")
        print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        totals = {"lost": 0}

        def phase(name, seconds, quiet=False):
            began, samples = time.monotonic(), []
            while time.monotonic() - began < seconds:
                common.alive(child, "nvr-launch", log)
                time.sleep(min(1.0, max(0.05, seconds / 20)))
                threads = len(list(pathlib.Path(f"/proc/{child.pid}/task").iterdir()))
                descriptors = len(list(pathlib.Path(f"/proc/{child.pid}/fd").iterdir()))
                samples.append((common.memory(child.pid)[0], threads, descriptors))
            counts, lost = numbers.take()
            resident = [sample[0] for sample in samples]
            missing = sum(lost.get(source, 0) for source in others)
            silent = [source for source in others if not counts.get(source)]
            if silent and not quiet:
                common.fail(f"no events of cameras {silent} in phase {name!r}; see {log}")
            if not quiet:
                totals["lost"] += missing
            print(
                f"| {name} | {seconds:.0f} | {statistics.median(resident):.1f} ({min(resident):.1f}–{max(resident):.1f}) "
                f"| {max(sample[1] for sample in samples)} | {max(sample[2] for sample in samples)} "
                f"| {sum(counts.get(source, 0) for source in others)} | {missing} |",
                flush=True,
            )
            return statistics.median(resident), counts.get(args.unplugged, 0)

        phase("warm-up", args.warm_up, quiet=True)
        before, seen = phase("all cameras", args.window)
        if not seen:
            common.fail(f"camera {args.unplugged} was never seen; see {log}")
        lab.tell(f"{args.unplugged} stall")
        unplugged = args.minutes * 60
        window = min(args.window, unplugged / 2)
        phase("unplugged", unplugged - window)
        during, seen = phase("unplugged, the end", window)
        if seen:
            common.fail(f"camera {args.unplugged} was unplugged and still seen")
        lab.tell(f"{args.unplugged} clear")
        began = time.monotonic()
        while not numbers.count.get(args.unplugged) and time.monotonic() - began < 120:
            common.alive(child, "nvr-launch", log)
            time.sleep(0.1)
        back = time.monotonic() - began
        after, seen = phase("plugged in again", args.window)
        if not seen:
            common.fail(f"camera {args.unplugged} did not come back within two minutes; see {log}")

    growth = max(during, after) / before - 1
    print(f"\nback after {back:.1f} s; memory {growth * 100:+.1f} %; frames lost by the other cameras: {totals['lost']}")
    if growth * 100 > args.limit or totals["lost"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
