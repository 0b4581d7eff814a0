#!/usr/bin/env python3
"""The detectors of the shared test data, run the usual way: OpenCV, NumPy, ONNX Runtime.

The yardstick for the Rust decoders and preprocessing, and written independently of them: every model is fed and
read as its authors' own demo program does it.

    reference.py detect MODEL.onnx IMAGE...      detections of pictures as JSON
    reference.py golden                          writes tests/data/reference/<model>.json
    reference.py score                           writes tests/data/reference/accuracy.json

Needs onnxruntime, opencv-python, numpy; the shared test data in NVR_TEST_DATA or ../shared/data.
"""

import argparse
import json
import os
import pathlib
import sys

import cv2
import numpy as np
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("NVR_TEST_DATA") or ROOT / "../shared/data")
OUT = ROOT / "tests/data/reference"

GOLDEN_IMAGES = [
    "samples/dog.jpg",
    "samples/bus.jpg",
    "samples/person.jpg",
    "coco/images/000000000139.jpg",
    "coco/images/000000000632.jpg",
    "coco/images/000000000776.jpg",
    "coco/images/000000000885.jpg",
]
GOLDEN_THRESHOLD = 0.3
SCORE_THRESHOLD = 0.01
SCORE_MAX = 100


# --- feeding -----------------------------------------------------------------------------------------------------


def letterbox(image, width, height, pad, centre):
    """Scaled picture on a padded canvas, and what maps a canvas point back: (x - dx) / r."""
    h, w = image.shape[:2]
    r = min(width / w, height / h)
    if centre:
        new_w, new_h = round(w * r), round(h * r)
        left, top = round((width - new_w) / 2 - 0.1), round((height - new_h) / 2 - 0.1)
    else:
        new_w, new_h, left, top = int(w * r), int(h * r), 0, 0
    canvas = np.full((height, width, 3), pad, np.uint8)
    canvas[top : top + new_h, left : left + new_w] = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    return canvas, (left, top, r, r)


def stretch(image, width, height):
    h, w = image.shape[:2]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), (0, 0, width / w, height / h)


def chw(image, scale=1.0):
    return (image.astype(np.float32) * np.float32(scale)).transpose(2, 0, 1)[None]


def rgb(image):
    return image[:, :, ::-1]


# --- reading -----------------------------------------------------------------------------------------------------


def corners(centre):
    xy, wh = centre[:, :2], centre[:, 2:4]
    return np.concatenate([xy - wh / 2, xy + wh / 2], 1)


def iou(box, boxes):
    lo = np.maximum(box[:2], boxes[:, :2])
    hi = np.minimum(box[2:], boxes[:, 2:])
    inter = np.prod(np.clip(hi - lo, 0, None), 1)
    area = lambda b: (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    return inter / (area(box) + area(boxes) - inter + 1e-9)


def nms(boxes, scores, classes, threshold, overlap):
    """Greedy, within each class. Indices of what stays, best first."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= threshold]
    keep = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(best)
        same = classes[rest] == classes[best]
        order = rest[~(same & (iou(boxes[best], boxes[rest]) > overlap))]
    return np.array(keep, int)


def back(boxes, transform, image):
    """From canvas to picture pixels, clipped."""
    left, top, rx, ry = transform
    boxes = (boxes - [left, top, left, top]) / [rx, ry, rx, ry]
    h, w = image.shape[:2]
    return np.clip(boxes, 0, [w, h, w, h])


def grid(width, height, strides):
    """Cell columns and rows and their stride, in the order of the predictions."""
    cells = []
    for s in strides:
        ys, xs = np.mgrid[0 : height // s, 0 : width // s]
        cells.append(np.stack([xs.ravel(), ys.ravel(), np.full(xs.size, s)], 1))
    return np.concatenate(cells).astype(np.float32)


def yolox(session, image, threshold, overlap):
    canvas, transform = letterbox(image, 416, 416, 114, centre=False)
    (out,) = session.run(None, {"images": chw(canvas)})
    out = out[0]
    if session.get_outputs()[0].name == "output":
        cells = grid(416, 416, (8, 16, 32))
        stride = cells[:, 2:3]
        out[:, :2] = (out[:, :2] + cells[:, :2]) * stride
        out[:, 2:4] = np.exp(out[:, 2:4]) * stride
    scores = out[:, 4:5] * out[:, 5:]
    classes, best = scores.argmax(1), scores.max(1)
    boxes = corners(out)
    keep = nms(boxes, best, classes, threshold, overlap)
    return back(boxes[keep], transform, image), best[keep], classes[keep]


def nms7(session, image, threshold, overlap):
    canvas, transform = letterbox(image, 416, 416, 114, centre=False)
    (out,) = session.run(None, {"images": chw(canvas)})
    out = out[out[:, 6] >= threshold]
    out = out[np.argsort(-out[:, 6], kind="stable")]
    return back(out[:, 1:5], transform, image), out[:, 6], out[:, 5].astype(int)


def yolov8(session, image, threshold, overlap):
    canvas, transform = letterbox(image, 640, 640, 114, centre=True)
    (out,) = session.run(None, {"images": chw(rgb(canvas), 1 / 255)})
    out = out[0].T
    classes, best = out[:, 4:].argmax(1), out[:, 4:].max(1)
    boxes = corners(out)
    keep = nms(boxes, best, classes, threshold, overlap)
    return back(boxes[keep], transform, image), best[keep], classes[keep]


def deim(session, image, threshold, overlap):
    canvas, _ = stretch(image, 320, 320)
    h, w = image.shape[:2]
    feed = {"images": chw(rgb(canvas), 1 / 255), "orig_target_sizes": np.array([[w, h]], np.int64)}
    labels, boxes, scores = (a[0] for a in session.run(["labels", "boxes", "scores"], feed))
    keep = np.argsort(-scores, kind="stable")
    keep = keep[scores[keep] >= threshold]
    return np.clip(boxes[keep], 0, [w, h, w, h]), scores[keep], labels[keep]


def nanodet(session, image, threshold, overlap):
    canvas, transform = letterbox(image, 320, 320, 0, centre=True)
    mean = np.array([103.53, 116.28, 123.675], np.float32)
    std = np.array([57.375, 57.12, 58.395], np.float32)
    blob = ((canvas.astype(np.float32) - mean) / std).transpose(2, 0, 1)[None]
    outs = session.run(None, {"image": blob})
    scores = np.concatenate(sorted((o for o in outs if o.shape[-1] == 80), key=len, reverse=True))
    dist = np.concatenate(sorted((o for o in outs if o.shape[-1] == 32), key=len, reverse=True))
    cells = grid(320, 320, (8, 16, 32))
    stride = cells[:, 2:3]
    centre = cells[:, :2] * stride + (stride - 1) / 2
    e = np.exp(dist.reshape(-1, 4, 8) - dist.reshape(-1, 4, 8).max(2, keepdims=True))
    sides = (e / e.sum(2, keepdims=True)) @ np.arange(8, dtype=np.float32) * stride
    boxes = np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], 1)
    classes, best = scores.argmax(1), scores.max(1)
    keep = nms(boxes, best, classes, threshold, overlap)
    return back(boxes[keep], transform, image), best[keep], classes[keep]


def fastestdet(session, image, threshold, overlap):
    canvas, transform = stretch(image, 352, 352)
    (out,) = session.run(None, {"input.1": chw(canvas, 1 / 255)})
    out = out[0].transpose(1, 2, 0).reshape(-1, 85)
    ys, xs = np.divmod(np.arange(484), 22)
    scores = out[:, 0] ** 0.6 * out[:, 5:].max(1) ** 0.4
    centre = np.stack([(np.tanh(out[:, 1]) + xs) / 22, (np.tanh(out[:, 2]) + ys) / 22], 1)
    boxes = corners(np.concatenate([centre, 1 / (1 + np.exp(-out[:, 3:5]))], 1) * 352)
    classes = out[:, 5:].argmax(1)
    keep = nms(boxes, scores, classes, threshold, overlap)
    return back(boxes[keep], transform, image), scores[keep], classes[keep]


def yunet(session, image, threshold, overlap):
    canvas, transform = letterbox(image, 640, 640, 0, centre=False)
    names = [f"{part}_{s}" for part in ("cls", "obj", "bbox") for s in (8, 16, 32)]
    outs = [o[0] for o in session.run(names, {"input": chw(canvas)})]
    cls, obj, box = (np.concatenate(outs[i : i + 3]) for i in (0, 3, 6))
    cells = grid(640, 640, (8, 16, 32))
    stride = cells[:, 2:3]
    scores = np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))[:, 0]
    boxes = corners(np.concatenate([(cells[:, :2] + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride], 1))
    classes = np.zeros(len(scores), int)
    keep = nms(boxes, scores, classes, threshold, overlap)
    return back(boxes[keep], transform, image), scores[keep], classes[keep]


# name of the file: how it is run, overlap of its suppression, whether it is scored on COCO's classes
MODELS = {
    "yolox_nano_416": (yolox, 0.45, True),
    "yolox_nano_v5layout": (yolox, 0.45, True),
    "yolox_nano_e2e_nms7": (nms7, 0.45, True),
    "yolov8n_int8": (yolov8, 0.45, True),
    "deimv2_atto_320": (deim, 1.0, True),
    "nanodet_m_320": (nanodet, 0.6, True),
    "fastestdet_352": (fastestdet, 0.45, True),
    "yunet_2026may": (yunet, 0.3, False),
}


def load(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def detect(name, session, image, threshold, limit=300):
    run, overlap, _ = MODELS[name]
    boxes, scores, classes = run(session, image, threshold, overlap)
    wide = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) if len(boxes) else np.zeros(0, bool)
    rows = zip(classes[wide][:limit], scores[wide][:limit], boxes[wide][:limit])
    return [[int(c), round(float(s), 4), *(round(float(v), 2) for v in b)] for c, s, b in rows]


# --- pictures ----------------------------------------------------------------------------------------------------


def odd(image):
    """Without the last row or column where their number is even."""
    h, w = image.shape[:2]
    return np.ascontiguousarray(image[: h - 1 + h % 2, : w - 1 + w % 2])


def through_420(image):
    """As a camera sends it: BT.601, 16 to 235, chroma at half size, and back. Integer formulas, so that any
    program can make the same planes; chroma of a block is that of its mean colour."""
    h, w = image.shape[:2]
    b, g, r = (image[:, :, i].astype(int) for i in range(3))
    y = ((66 * r + 129 * g + 25 * b + 128) >> 8) + 16
    rows, columns = (h + 1) // 2, (w + 1) // 2
    mean = []
    for plane in (r, g, b):
        total = np.zeros((rows, columns), int)
        count = np.zeros((rows, columns), int)
        for dy in (0, 1):
            for dx in (0, 1):
                part = plane[dy::2, dx::2]
                total[: part.shape[0], : part.shape[1]] += part
                count[: part.shape[0], : part.shape[1]] += 1
        mean.append((total + count // 2) // count)
    r, g, b = mean
    u = ((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128
    v = ((112 * r - 94 * g - 18 * b + 128) >> 8) + 128
    up = lambda plane: plane.repeat(2, 0).repeat(2, 1)[:h, :w].astype(float) - 128
    y, u, v = 255 / 219 * (y - 16), up(u) * 255 / 224, up(v) * 255 / 224
    bgr = np.stack([y + 1.772 * u, y - 0.344136 * u - 0.714136 * v, y + 1.402 * v], 2)
    return np.clip(np.rint(bgr), 0, 255).astype(np.uint8)


VARIANTS = {
    "rgb": lambda image: image,
    "rgb-odd": odd,
    "420": through_420,
    "420-odd": lambda image: through_420(odd(image)),
}


def golden(models):
    OUT.mkdir(parents=True, exist_ok=True)
    for name in models:
        session = load(DATA / "models" / f"{name}.onnx")
        images = {}
        for path in GOLDEN_IMAGES:
            image = cv2.imread(str(DATA / "images" / path))
            images[path] = {
                variant: detect(name, session, make(image), GOLDEN_THRESHOLD) for variant, make in VARIANTS.items()
            }
        with open(OUT / f"{name}.json", "w") as file:
            head = {"model": name, "threshold": GOLDEN_THRESHOLD, "iou_threshold": MODELS[name][1]}
            file.write(json.dumps(head)[:-1] + ', "images": {\n')
            lines = [
                f'  {json.dumps(path)}: {{\n'
                + ",\n".join(f"    {json.dumps(v)}: {json.dumps(d)}" for v, d in variants.items())
                + "\n  }"
                for path, variants in images.items()
            ]
            file.write(",\n".join(lines) + "\n}}\n")
        count = sum(len(d) for variants in images.values() for d in variants.values())
        print(f"{name}: {count} detections")


# --- scoring -----------------------------------------------------------------------------------------------------


def average_precision(truth, found, overlap):
    """Mean over classes of COCO's 101-point average precision at one IoU. `truth`: picture → [class, x1 y1 x2 y2],
    `found`: picture → [class, score, x1 y1 x2 y2]."""
    per_class = []
    for cls in sorted({t[0] for rows in truth.values() for t in rows}):
        boxes = {i: np.array([t[1:] for t in rows if t[0] == cls], float).reshape(-1, 4) for i, rows in truth.items()}
        total = sum(len(b) for b in boxes.values())
        rows = [(d[1], i, d[2:]) for i, found_here in found.items() for d in found_here if d[0] == cls]
        rows.sort(key=lambda row: -row[0])
        taken = {i: np.zeros(len(b), bool) for i, b in boxes.items()}
        hits = []
        for _, i, box in rows:
            hit = False
            if len(boxes[i]):
                overlaps = np.where(taken[i], -1, iou(np.array(box), boxes[i]))
                at = overlaps.argmax()
                hit = overlaps[at] >= overlap
                taken[i][at] |= hit
            hits.append(hit)
        tp = np.cumsum(hits) if hits else np.zeros(0)
        precision = tp / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(tp / total, np.linspace(0, 1, 101) - 1e-9, side="left")
        per_class.append(np.where(at < len(precision), precision[np.minimum(at, len(precision) - 1)], 0).mean() if hits else 0.0)
    return float(np.mean(per_class))


def score(models):
    labels = json.load(open(DATA / "images/coco/instances.json"))
    names = {i["id"]: i["file_name"] for i in labels["images"]}
    truth = {i: [] for i in names}
    for a in labels["annotations"]:
        x, y, w, h = a["bbox"]
        truth[a["image_id"]].append([a["category_id"], x, y, x + w, y + h])
    result = {}
    for name in models:
        if not MODELS[name][2]:
            continue
        session = load(DATA / "models" / f"{name}.onnx")
        found = {
            i: detect(name, session, cv2.imread(str(DATA / "images/coco/images" / file)), SCORE_THRESHOLD, SCORE_MAX)
            for i, file in names.items()
        }
        at = {overlap: average_precision(truth, found, overlap) for overlap in np.arange(0.5, 0.96, 0.05).round(2)}
        result[name] = {"ap50": round(at[0.5], 4), "ap": round(float(np.mean(list(at.values()))), 4)}
        print(name, result[name])
    OUT.mkdir(parents=True, exist_ok=True)
    result = {"threshold": SCORE_THRESHOLD, "max_detections": SCORE_MAX, "pictures": len(names), "models": result}
    (OUT / "accuracy.json").write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("detect")
    one.add_argument("model", type=pathlib.Path)
    one.add_argument("image", nargs="+", type=pathlib.Path)
    one.add_argument("--threshold", type=float, default=0.5)
    for name in ("golden", "score"):
        commands.add_parser(name).add_argument("models", nargs="*", default=list(MODELS))
    args = parser.parse_args()
    if args.command == "detect":
        name = args.model.stem
        if name not in MODELS:
            sys.exit(f"{args.model}: known models are {', '.join(MODELS)}")
        session = load(args.model)
        for path in args.image:
            image = cv2.imread(str(path))
            if image is None:
                sys.exit(f"{path}: no readable picture")
            print(json.dumps({"image": str(path), "detections": detect(name, session, image, args.threshold)}))
    else:
        {"golden": golden, "score": score}[args.command](args.models)


if __name__ == "__main__":
    main()
