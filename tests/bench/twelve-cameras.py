#!/usr/bin/env python3
"""Twelve cameras: nvr-launch, plain Python and bare decoding one after the other, against the same cameras.

Prints a markdown table. tests/bench/README.md says what each column means and how to read it.
"""

import argparse
import bisect
import collections
import contextlib
import datetime
import json
import os
import pathlib
import shlex
import socket
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import common  # noqa: E402

BENCH = pathlib.Path(__file__).resolve().parent
# Clocks of one host: a capture time may lie this far before the frame's departure by rounding to milliseconds.
SLACK = 0.002


class Subscriber:
    """Collects (time of receipt, event) of every camera."""

    def __init__(self, port):
        import paho.mqtt.client as mqtt

        self.lock, self.events = threading.Lock(), []
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_message = self.receive
        self.client.on_connect = lambda client, *_: client.subscribe("nvr/detections/+")
        self.client.on_socket_open = lambda _c, _d, s: s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def receive(self, _client, _data, message):
        now = time.time()
        with self.lock:
            self.events.append((now, message.topic, message.payload))

    def take(self):
        with self.lock:
            events, self.events = self.events, []
        return events

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def parse(raw):
    """Events as (received, source, event), in the order of receipt."""
    for received, topic, payload in raw:
        event = json.loads(payload)
        yield received, int(topic.rsplit("/", 1)[1]), event


def departures(log):
    """Per camera the times of departure, and with each the frame's number since its stream began."""
    sent = collections.defaultdict(lambda: ([], []))
    with open(log, encoding="ascii") as lines:
        for line in lines:
            # The last line may be half written.
            if line.endswith("\n"):
                path, number, nanoseconds = line.split()
                times, numbers = sent[int(path.strip("/"))]
                times.append(int(nanoseconds) / 1e9)
                numbers.append(int(number))
    return sent


def departed(sent, frames, source, received, event):
    """When the frame of an event left the camera; None if it cannot be told."""
    times, numbers = sent[source]
    index = event.get("frame_index")
    if index is None:
        stamp = datetime.datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")).timestamp()
        at = bisect.bisect_right(times, stamp + SLACK) - 1
        return times[at] if at >= 0 else None
    at = bisect.bisect_right(times, received) - 1
    while at >= 0 and numbers[at] % frames[source] != index:
        at -= 1
    return times[at] if at >= 0 else None


def latencies(raw, log, facts):
    """Milliseconds from departure and from the event's own timestamp to receipt, and from departure to timestamp."""
    sent, frames = departures(log), [camera["frames"] for camera in facts["cameras"]]
    total, own, offset = [], [], []
    for received, source, event in parse(raw):
        stamp = datetime.datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")).timestamp()
        own.append((received - stamp) * 1e3)
        if (left := departed(sent, frames, source, received, event)) is not None:
            total.append((received - left) * 1e3)
            offset.append((stamp - left) * 1e3)
    return total, own, offset


def delivered_rates(raw):
    """Frames per second that each source delivered, analysed or not, by `frame_id`."""
    ends = {}
    for received, source, event in parse(raw):
        first = ends.setdefault(source, [received, event["frame_id"], 0, 0])
        first[2:] = received, event["frame_id"]
    return [(b - a) / (t - s) for s, a, t, b in ends.values() if t - s > 1]


class Run:
    """One contender and what was measured."""

    def __init__(self, name, command, events):
        self.name, self.command, self.events = name, command, events


def measure(run, args, folder, facts, log, subscriber, others):
    count, output = args.cameras, folder / f"{run.name}.log"
    subscriber.take()
    print(f"{run.name}: {shlex.join(map(str, run.command))}", file=sys.stderr)
    with common.process(run.command, output) as child:
        began, reported, seen = time.time(), {}, []
        deadline = began + args.start_timeout
        while run.events and len(reported) < count:
            common.alive(child, run.name, output)
            if time.time() > deadline:
                missing = sorted(set(range(count)) - set(reported))
                common.fail(f"{run.name}: cameras {missing} sent no event within {args.start_timeout} s; see {output}")
            time.sleep(0.05)
            seen = subscriber.take()
            for received, topic, _ in seen:
                reported.setdefault(int(topic.rsplit("/", 1)[1]), received - began)
        time.sleep(args.settle if run.events else max(args.settle, 8))
        common.alive(child, run.name, output)

        subscriber.take()
        pids = {"self": child.pid, **others}
        before, start = {key: common.cpu_seconds(pid) for key, pid in pids.items()}, time.time()
        time.sleep(args.seconds)
        raw = subscriber.take()
        elapsed = time.time() - start
        common.alive(child, run.name, output)
        cores = {key: (common.cpu_seconds(pid) - before[key]) / elapsed for key, pid in pids.items()}
        rss, pss, peak = common.memory(child.pid)

    result = {"name": run.name, "cores": cores, "rss_mb": rss, "pss_mb": pss, "peak_mb": peak}
    result["first_s"] = min(reported.values(), default=None)
    result["all_s"] = max(reported.values(), default=None)
    if run.events:
        per_camera = collections.Counter(source for _, source, _ in parse(raw))
        rates = [per_camera[source] / elapsed for source in range(count)]
        # The log is written by another thread: give its last lines a moment.
        time.sleep(0.3)
        total, own, offset = latencies(raw, log, facts)
        delivered = delivered_rates(raw)
        result |= {
            "rate_min": min(rates),
            "rate_max": max(rates),
            "delivered_min": min(delivered, default=None),
            "events": len(raw),
            "detections": sum(len(event["detections"]) for _, _, event in parse(raw)),
            "p50_ms": common.percentile(total, 50),
            "p95_ms": common.percentile(total, 95),
            "own_p50_ms": common.percentile(own, 50),
            "own_p95_ms": common.percentile(own, 95),
            "stamp_offset_ms": statistics.median(offset) if offset else None,
            "clocks": dict(collections.Counter(event.get("clock") for _, _, event in parse(raw))),
        }
    return result


def table(results):
    columns = [
        ("program", lambda r: r["name"]),
        ("cores", lambda r: f"{r['cores']['self']:.2f}"),
        ("cameras + broker, cores", lambda r: f"{r['cores']['cameras'] + r['cores']['broker']:.2f}"),
        ("events/s per camera, min–max", lambda r: f"{r['rate_min']:.2f}–{r['rate_max']:.2f}"),
        ("frames/s delivered, min", lambda r: f"{r['delivered_min']:.1f}"),
        ("frame → event p50 / p95 ms", lambda r: f"{r['p50_ms']:.1f} / {r['p95_ms']:.1f}"),
        ("own clock p50 / p95 ms", lambda r: f"{r['own_p50_ms']:.1f} / {r['own_p95_ms']:.1f}"),
        ("stamped after ms", lambda r: f"{r['stamp_offset_ms']:.1f}"),
        ("detections/event", lambda r: f"{r['detections'] / max(r['events'], 1):.2f}"),
        ("RSS / PSS / peak MB", lambda r: f"{r['rss_mb']:.0f} / {r['pss_mb']:.0f} / {r['peak_mb']:.0f}"),
        ("first / all cameras, s", lambda r: f"{r['first_s']:.1f} / {r['all_s']:.1f}"),
    ]

    def cell(take, result):
        try:
            return take(result)
        except (KeyError, TypeError):
            return "–"

    lines = ["| " + " | ".join(name for name, _ in columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(take, result) for _, take in columns) + " |" for result in results]
    return "\n".join(lines)


def contenders(args, facts, port):
    urls = [camera["uri"] for camera in facts["cameras"]]
    broker = f"mqtt://127.0.0.1:{port}"
    peer = [sys.executable, BENCH / "peer.py", *urls]
    chains = [
        word
        for url in urls
        for word in f"rtspsrc location={url} protocols=tcp latency=0 ! rtph264depay ! h264parse "
        "! avdec_h264 max-threads=1 ! fakesink sync=false".split()
    ]
    places = {
        "port": facts["port"],
        "server": f"rtsp://127.0.0.1:{facts['port']}",
        "broker": broker,
        "model": args.model,
        "last": args.cameras - 1,
        "fps": args.fps,
    }

    def ours():
        if args.ours:
            return shlex.split(args.ours.format(**places))
        binary = common.program("nvr-launch", "nvr-launch")
        options = "--streams 0-{last} --stream-server {server} --broker {broker} --max-fps {fps}"
        return [binary, "processor", *options.format(**places).split(), "--model", args.model]

    every = {
        "nvr-launch": lambda: Run("nvr-launch", ours(), True),
        "python": lambda: Run(
            "python",
            [*peer, "--model", args.model, "--broker", broker, "--fps", args.fps],
            True,
        ),
        "gst-decode": lambda: Run("gst-decode", ["gst-launch-1.0", "-q", *chains], False),
        "ffmpeg-decode": lambda: Run("ffmpeg-decode", [*peer, "--decode-only"], False),
    }
    unknown = [name for name in args.only if name not in every]
    if unknown:
        common.fail(f"unknown in --only: {', '.join(unknown)}; there are {', '.join(every)}")
    return [every[name]() for name in args.only or every]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=12)
    parser.add_argument("--fps", type=float, default=5.0, help="analysed frames per second and camera")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the measured window per program")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds between the last camera's first event and it")
    parser.add_argument("--start-timeout", type=float, default=90.0)
    parser.add_argument("--model", help="YOLOX file; default: yolox_nano_416.onnx of the shared test data")
    parser.add_argument("--video", action="append", help="video for the cameras; default: two of the shared test data")
    parser.add_argument("--only", default=[], type=lambda text: text.split(","), help="programs, comma separated")
    parser.add_argument("--ours", help="command instead of nvr-launch; {server} {broker} {model} {last} {fps} {port}")
    parser.add_argument("--repeat", type=int, default=1, help="rounds over all programs")
    parser.add_argument("--json", help="also write all figures to this file")
    parser.add_argument("--keep", action="store_true", help="keep the programs' logs")
    args = parser.parse_args()

    args.model = args.model or common.data("models/yolox_nano_416.onnx")
    if not args.model or not pathlib.Path(args.model).exists():
        common.fail("no model: give --model, or NVR_TEST_DATA with models/yolox_nano_416.onnx")
    videos = common.videos(args.video)

    with common.logs(args.keep) as folder, contextlib.ExitStack() as stack:
        port, mosquitto = stack.enter_context(common.broker(folder))
        facts, log, server = stack.enter_context(common.cameras(folder, args.cameras, videos))
        subscriber = Subscriber(port)
        stack.callback(subscriber.close)
        others, results = {"cameras": server.pid, "broker": mosquitto.pid}, []
        for _ in range(args.repeat):
            for run in contenders(args, facts, port):
                results.append(measure(run, args, folder, facts, log, subscriber, others))
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
        print(f"{args.cameras} cameras, {args.fps:g} fps each, {os.cpu_count()} cores, {args.seconds:g} s per program\n")
        print(table(results))


if __name__ == "__main__":
    main()
