#!/usr/bin/env python3
"""The same job in plain Python: RTSP cameras, YOLOX on ONNX Runtime, events to MQTT.

What a good engineer writes in an afternoon with OpenCV, ONNX Runtime and paho, and the peer that the benchmarks
compare with. One thread per camera grabs every frame and decodes it; `--fps` times a second it retrieves one and
leaves it in the camera's slot, where a newer frame replaces it. Worker threads, each with an ONNX Runtime session
of one thread (one session with several threads spins and is slower), take the oldest slot. OpenCV and FFmpeg use
one thread each, and the MQTT socket has TCP_NODELAY: the same settings that the elements take.

Events have the keys of docs/ref/protocol.md. `timestamp` is taken when grab() returns, which is after decoding,
and `frame_index` is the number that bench-cameras painted into the picture.

Prints a summary as JSON when it ends: by SIGINT, SIGTERM or after --seconds.
"""

import argparse
import collections
import datetime
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.parse

os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

import cv2  # noqa: E402 (the settings above must come first)
import numpy as np  # noqa: E402

SQUARE = 16
BITS = 10


def painted_number(image):
    """The frame number that bench-cameras paints, None where there is none."""
    squares = image[SQUARE // 2, SQUARE // 2 : (BITS + 2) * SQUARE : SQUARE, 1] > 128
    if len(squares) < BITS + 2 or not squares[0] or squares[1]:
        return None
    return int("".join("1" if bit else "0" for bit in squares[2:]), 2)


class Yolox:
    """YOLOX as its own demo runs it: demo/ONNXRuntime/onnx_inference.py."""

    def __init__(self, path, score, iou):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0]
        self.height, self.width = self.input.shape[2:]
        self.score, self.iou = score, iou
        grids, strides = [], []
        for stride in (8, 16, 32):
            h, w = self.height // stride, self.width // stride
            x, y = np.meshgrid(np.arange(w), np.arange(h))
            grids.append(np.stack((x, y), 2).reshape(-1, 2))
            strides.append(np.full((h * w, 1), stride))
        self.grid = np.concatenate(grids).astype(np.float32)
        self.stride = np.concatenate(strides).astype(np.float32)

    def detect(self, image):
        """Boxes x, y, width, height in pixels of the image, scores, class ids, and seconds of inference."""
        ratio = min(self.height / image.shape[0], self.width / image.shape[1])
        size = int(image.shape[1] * ratio), int(image.shape[0] * ratio)
        canvas = np.full((self.height, self.width, 3), 114, np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        tensor = np.ascontiguousarray(canvas.transpose(2, 0, 1), dtype=np.float32)[None]
        began = time.perf_counter()
        out = self.session.run(None, {self.input.name: tensor})[0][0]
        inference = time.perf_counter() - began

        scores = out[:, 4:5] * out[:, 5:]
        classes = scores.argmax(1)
        best = scores[np.arange(len(scores)), classes]
        keep = best > self.score
        out, best, classes = out[keep], best[keep], classes[keep]
        centre = (out[:, :2] + self.grid[keep]) * self.stride[keep]
        extent = np.exp(out[:, 2:4]) * self.stride[keep]
        boxes = np.concatenate((centre - extent / 2, extent), 1) / ratio
        if len(boxes):
            chosen = cv2.dnn.NMSBoxesBatched(boxes.tolist(), best.tolist(), classes.tolist(), self.score, self.iou)
            chosen = np.asarray(chosen, int).reshape(-1)
            boxes, best, classes = boxes[chosen], best[chosen], classes[chosen]
        return boxes, best, classes, inference


class Slots:
    """The newest frame of every camera that waits for a worker, oldest first."""

    def __init__(self):
        self.condition = threading.Condition()
        self.frames = collections.OrderedDict()
        self.replaced = 0
        self.closed = False

    def put(self, source, frame):
        with self.condition:
            if source in self.frames:
                self.replaced += 1
            self.frames[source] = frame
            self.condition.notify()

    def take(self):
        with self.condition:
            self.condition.wait_for(lambda: self.frames or self.closed)
            return None if self.closed else self.frames.popitem(last=False)

    def close(self):
        with self.condition:
            self.closed = True
            self.condition.notify_all()


class Camera(threading.Thread):
    def __init__(self, source, url, fps, slots, stop, decode_only):
        super().__init__(daemon=True)
        self.source, self.url, self.fps, self.slots, self.stop = source, url, fps, slots, stop
        self.decode_only = decode_only
        self.frames = self.reconnects = 0

    def run(self):
        while not self.stop.is_set():
            options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 10000]
            capture = cv2.VideoCapture(self.url, cv2.CAP_FFMPEG, [*options, cv2.CAP_PROP_N_THREADS, 1])
            self.watch(capture)
            capture.release()
            if not self.stop.is_set():
                self.reconnects += 1
                self.stop.wait(1)

    def watch(self, capture):
        due = 0.0
        while not self.stop.is_set() and capture.grab():
            arrived, now = time.time(), time.monotonic()
            self.frames += 1
            # A frame that comes a little early counts, or jitter would halve the rate.
            if self.decode_only or now < due - 0.01:
                continue
            due = max(due + 1 / self.fps, now - 1 / self.fps) if due else now + 1 / self.fps
            good, image = capture.retrieve()
            if good:
                self.slots.put(self.source, (self.frames, arrived, image))


def connect(broker):
    import paho.mqtt.client as mqtt

    parts = urllib.parse.urlsplit(broker)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"peer-{os.getpid()}")
    if parts.username:
        client.username_pw_set(urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or ""))

    def no_delay(_client, _data, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    client.on_socket_open = no_delay
    client.connect(parts.hostname, parts.port or 1883)
    client.loop_start()
    return client


def work(model, slots, client, args, totals, names):
    """Takes frames until the slots are closed. Counts events per camera."""
    while (item := slots.take()) is not None:
        source, (frame_id, arrived, image) = item
        boxes, scores, classes, inference = model.detect(image)
        height, width = image.shape[:2]
        detections = []
        for (x, y, w, h), score, class_id in zip(boxes.tolist(), scores.tolist(), classes.tolist()):
            left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            name = names[class_id] if class_id < len(names) else f"class-{class_id}"
            box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            detections.append({"class_name": name, "class_id": class_id, "confidence": score, "bbox": box})
        stamp = datetime.datetime.fromtimestamp(arrived, datetime.timezone.utc)
        event = {
            "version": "1.0",
            "instance_id": "peer",
            "source_id": source,
            "frame_id": frame_id,
            "timestamp": stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "clock": "arrival",
            "model_id": os.path.splitext(os.path.basename(args.model))[0],
            "inference_time_ms": inference * 1e3,
            "frame_width": width,
            "frame_height": height,
            "detections": detections,
            "latency_ms": (time.time() - arrived) * 1e3,
            "frame_index": painted_number(image),
        }
        client.publish(f"{args.topic_prefix}/detections/{source}", json.dumps(event))
        totals[source] += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="+", help="camera addresses; the first is source 0")
    parser.add_argument("--model", help="YOLOX .onnx file with raw output")
    parser.add_argument("--broker", default="mqtt://localhost:1883")
    parser.add_argument("--topic-prefix", default="nvr")
    parser.add_argument("--fps", type=float, default=5.0, help="analysed frames per second and camera")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="inference threads, default one per core")
    parser.add_argument("--confidence", type=float, default=0.5)
    parser.add_argument("--iou", type=float, default=0.45)
    parser.add_argument("--labels", help="file with one class name per line")
    parser.add_argument("--seconds", type=float, help="end after this time")
    parser.add_argument("--decode-only", action="store_true", help="grab and decode, nothing else")
    args = parser.parse_args()
    if not args.model and not args.decode_only:
        parser.error("--model is needed unless --decode-only is given")

    cv2.setNumThreads(1)
    stop, slots = threading.Event(), Slots()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    names = open(args.labels, encoding="utf-8").read().splitlines() if args.labels else []
    totals = collections.Counter()
    began, workers, client = time.monotonic(), [], None
    cameras = [Camera(i, url, args.fps, slots, stop, args.decode_only) for i, url in enumerate(args.urls)]
    for camera in cameras:
        camera.start()
    if not args.decode_only:
        try:
            client = connect(args.broker)
        except OSError as error:
            sys.exit(f"peer: no broker at {args.broker}: {error}")
        for _ in range(args.workers):
            model = Yolox(args.model, args.confidence, args.iou)
            workers.append(threading.Thread(target=work, args=(model, slots, client, args, totals, names)))
            workers[-1].start()

    stop.wait(args.seconds)
    stop.set()
    slots.close()
    for worker in workers:
        worker.join(10)
    for camera in cameras:
        camera.join(2)
    if client:
        client.disconnect()
        client.loop_stop()
    seconds = time.monotonic() - began
    summary = {
        "seconds": round(seconds, 2),
        "frames": [camera.frames for camera in cameras],
        "events": [totals[camera.source] for camera in cameras],
        "replaced": slots.replaced,
        "reconnects": sum(camera.reconnects for camera in cameras),
        "cpu_seconds": round(time.process_time(), 2),
    }
    print(json.dumps(summary), flush=True)
    # A grab() that waits for a dead camera would keep the interpreter for its whole timeout.
    os._exit(0)


if __name__ == "__main__":
    main()
