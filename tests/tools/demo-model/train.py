#!/usr/bin/env python3
"""Trains the built-in demo detector on what nvrtestsrc draws, checks it on other seeds, and writes an ONNX file.

The network is a small anchor-free single-stage detector with one output map of stride 8 that also sees strides 16
and 32. Its output has the layout of YOLOv8: 1 × (4 + classes) × cells, boxes as centre and size in input pixels.
"""

import argparse
import json
import subprocess
import time

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

NAMES = ["person", "car", "dog"]
WIDTH, HEIGHT, STRIDE, PAD = 320, 192, 8, 114
GRID_W, GRID_H = WIDTH // STRIDE, HEIGHT // STRIDE


def records(binary, *arguments):
    """Yields (facts, BGR picture) from dump-scene."""
    with subprocess.Popen([binary, *map(str, arguments)], stdout=subprocess.PIPE, bufsize=1 << 20) as process:
        while line := process.stdout.readline():
            facts = json.loads(line)
            size = facts["width"] * facts["height"] * 3
            pixels = np.frombuffer(process.stdout.read(size), np.uint8)
            yield facts, pixels.reshape(facts["height"], facts["width"], 3)[:, :, ::-1]


def degrade(picture, random):
    """Block artefacts, softness and other brightness, as cameras and encoders leave them."""
    if random.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.4, 1.4) * picture.shape[0] / 500)
    if random.random() < 0.7:
        quality = int(random.integers(12, 75))
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return picture


def letterbox(picture):
    """Fits a picture into the input as the plugin does: aspect kept, centred, bilinear without smoothing."""
    height, width = picture.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    w, h = round(width * scale), round(height * scale)
    left, top = (WIDTH - w) // 2, (HEIGHT - h) // 2
    out = np.full((HEIGHT, WIDTH, 3), PAD, np.uint8)
    out[top : top + h, left : left + w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_LINEAR)
    return out, scale, left, top


def boxes_of(facts, scale, left, top):
    """Rows of x1, y1, x2, y2 (input pixels), class, reported, visible."""
    rows = []
    for item in facts["objects"]:
        x, y, w, h = item["box"]
        rows.append(
            [x * scale + left, y * scale + top, (x + w) * scale + left, (y + h) * scale + top]
            + [item["class_id"], item["reported"], item["visible"]]
        )
    return np.array(rows, np.float32).reshape(-1, 7)


def targets(boxes):
    """Maps for one picture: class (-1 none), its weight, and the box; all on the output grid."""
    klass = np.full((GRID_H, GRID_W), -1, np.int64)
    weight = np.ones((GRID_H, GRID_W), np.float32)
    box = np.zeros((4, GRID_H, GRID_W), np.float32)
    owner_area = np.full((GRID_H, GRID_W), np.inf, np.float32)
    cx = (np.arange(GRID_W) + 0.5)[None, :] * STRIDE
    cy = (np.arange(GRID_H) + 0.5)[:, None] * STRIDE
    for x1, y1, x2, y2, k, reported, visible in boxes:
        inside = (cx > x1) & (cx < x2) & (cy > y1) & (cy < y2)
        if not reported:
            if visible > 0.04:
                weight[inside & (klass < 0)] = 0
            continue
        # Next to the centre nothing is certain: half the weight.
        weight[inside & (klass < 0)] = np.minimum(weight, 0.5)[inside & (klass < 0)]
        reach_x = max(4.01, min(0.3 * (x2 - x1), 12.5))
        reach_y = max(4.01, min(0.3 * (y2 - y1), 12.5))
        near = (abs(cx - (x1 + x2) / 2) <= reach_x) & (abs(cy - (y1 + y2) / 2) <= reach_y)
        area = (x2 - x1) * (y2 - y1)
        own = near & (area < owner_area)
        owner_area[own] = area
        klass[own] = int(k)
        weight[own] = 1
        box[:, own] = np.array([x1, y1, x2, y2], np.float32)[:, None]
    return klass, weight, box


def load(binary, scenes, frames, first_seed):
    random = np.random.default_rng(first_seed)
    pictures, maps = [], []
    for facts, picture in records(
        binary, "--scenes", scenes, "--frames", frames, "--first-seed", first_seed
    ):
        small, scale, left, top = letterbox(degrade(picture, random))
        pictures.append(small[:, :, ::-1].transpose(2, 0, 1))
        maps.append(targets(boxes_of(facts, scale, left, top)))
    klass, weight, box = (torch.from_numpy(np.stack(part)) for part in zip(*maps))
    return torch.from_numpy(np.stack(pictures)), klass, weight, box


def conv(inputs, outputs, kernel=3, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 12, 3, 2), conv(12, 20, 3, 2), conv(20, 32, 3, 2))
        self.near = conv(32, 32)
        self.middle = nn.Sequential(conv(32, 48, 3, 2), conv(48, 48))
        self.far = nn.Sequential(conv(48, 64, 3, 2), conv(64, 48))
        self.fuse_middle = conv(48, 48, 1)
        self.fuse_near = conv(48, 32, 1)
        self.merge = conv(32, 48)
        self.head = conv(48, 48)
        self.out = nn.Conv2d(48, 4 + len(NAMES), 1)
        nn.init.constant_(self.out.bias[4:], -4.0)

    def forward(self, x):
        a = self.stem(x)
        near = self.near(a) + a
        middle = self.middle(near)
        far = self.far(middle)
        middle = self.fuse_middle(middle) + functional.interpolate(far, scale_factor=2, mode="nearest")
        near = near + functional.interpolate(self.fuse_near(middle), scale_factor=2, mode="nearest")
        return self.out(self.head(self.merge(near)))


def corners(raw, cx, cy):
    """Distances to the four sides, in strides, become corners in input pixels."""
    d = functional.softplus(raw) * STRIDE
    return torch.stack([cx - d[:, 0], cy - d[:, 1], cx + d[:, 2], cy + d[:, 3]], 1)


def giou_loss(a, b):
    ix = (torch.min(a[:, 2], b[:, 2]) - torch.max(a[:, 0], b[:, 0])).clamp(min=0)
    iy = (torch.min(a[:, 3], b[:, 3]) - torch.max(a[:, 1], b[:, 1])).clamp(min=0)
    inter = ix * iy
    area = lambda r: (r[:, 2] - r[:, 0]) * (r[:, 3] - r[:, 1])
    union = area(a) + area(b) - inter
    hull = (torch.max(a[:, 2], b[:, 2]) - torch.min(a[:, 0], b[:, 0])) * (
        torch.max(a[:, 3], b[:, 3]) - torch.min(a[:, 1], b[:, 1])
    )
    return 1 - inter / union + (hull - union) / hull


def grid():
    cx = (torch.arange(GRID_W) + 0.5).repeat(GRID_H) * STRIDE
    cy = (torch.arange(GRID_H) + 0.5).repeat_interleave(GRID_W) * STRIDE
    return cx, cy


def blocks(model):
    """Every convolution with its normalisation, by the name that it has in the ONNX file."""
    named = {f"stem{n}": block for n, block in enumerate(model.stem)}
    named |= {"near": model.near, "middle0": model.middle[0], "middle1": model.middle[1]}
    named |= {"far0": model.far[0], "far1": model.far[1], "fuse_middle": model.fuse_middle}
    return named | {"fuse_near": model.fuse_near, "merge": model.merge, "head": model.head}


def restore(model, path):
    """Takes over the weights of an exported file. Its normalisation is folded in, so that of the model does nothing."""
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer}
    with torch.no_grad():
        for name, (convolution, norm, _) in blocks(model).items():
            convolution.weight.copy_(tensors[name + ".w"])
            norm.bias.copy_(tensors[name + ".b"])
            norm.weight.fill_((1 + norm.eps) ** 0.5)
        model.out.weight.copy_(tensors["out.w"])
        model.out.bias.copy_(tensors["out.b"])
    for _, norm, _ in blocks(model).values():
        norm.eval()


def train(data, steps, batch, seed, init):
    pictures, klass, weight, box = data
    torch.manual_seed(seed)
    model = Detector().to(memory_format=torch.channels_last)
    rate = 3e-3
    if init:
        restore(model, init)
        rate = 8e-4
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    cx, cy = grid()
    noise = torch.randn(16, 3, HEIGHT, WIDTH)
    start, lost = time.monotonic(), 0.0
    order = torch.randperm(len(pictures))
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = torch.randperm(len(pictures))
        pick, order = order[:batch], order[batch:]
        x, k, w, b = pictures[pick].float() / 255, klass[pick], weight[pick], box[pick]
        if torch.rand(()) < 0.5:
            x, k, w, b = x.flip(3), k.flip(2), w.flip(2), b.flip(3)
            b = torch.stack([WIDTH - b[:, 2], b[:, 1], WIDTH - b[:, 0], b[:, 3]], 1)
        contrast, brightness = 0.75 + 0.5 * torch.rand(batch, 1, 1, 1), 0.24 * torch.rand(batch, 1, 1, 1) - 0.12
        tint = 0.94 + 0.12 * torch.rand(batch, 3, 1, 1)
        x = ((x - 0.5) * contrast + 0.5 + brightness) * tint
        shift = (int(torch.randint(HEIGHT, ())), int(torch.randint(WIDTH, ())))
        grain = noise.roll(shift, (2, 3))[torch.randint(len(noise), (batch,))]
        x = torch.addcmul(x, grain, 0.02 * torch.rand(batch, 1, 1, 1)).clamp_(0, 1)

        warm = min(1.0, step / 50)
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * (0.5 + 0.5 * np.cos(np.pi * step / steps)) + 1e-5
        with torch.autocast("cpu", torch.bfloat16):
            raw = model(x.contiguous(memory_format=torch.channels_last))
        raw = raw.float().flatten(2)
        k, w, b = k.flatten(1), w.flatten(1), b.flatten(2)
        positive = k >= 0
        count = positive.sum().clamp(min=1)
        wanted = functional.one_hot(k.clamp(min=0), len(NAMES)) * positive[..., None]
        scores = raw[:, 4:].transpose(1, 2)
        loss_class = functional.binary_cross_entropy_with_logits(scores, wanted.float(), w[..., None], reduction="sum")
        at = positive.nonzero(as_tuple=True)
        predicted = corners(raw[:, :4].transpose(1, 2)[at], cx[at[1]], cy[at[1]])
        loss_box = giou_loss(predicted, b.transpose(1, 2)[at]).sum()
        loss = (loss_class + 2 * loss_box) / count
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        lost += loss.item()
        if step % 50 == 0:
            print(f"step {step} of {steps}: loss {lost / 50:.3f}, {time.monotonic() - start:.0f} s", flush=True)
            lost = 0.0
    return model.eval()


def fold(block):
    """Convolution with the batch normalisation folded in."""
    convolution, norm = block[0], block[1]
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = convolution.weight * gain[:, None, None, None]
    return weight.detach().numpy(), (norm.bias - norm.running_mean * gain).detach().numpy()


def export(model, path):
    """Writes the ONNX file node by node: no exporter decides about layout or operators."""
    nodes, tensors = [], []

    def constant(name, value):
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def convolve(block, source, name):
        weight, bias = fold(block)
        inputs = [source, constant(name + ".w", weight), constant(name + ".b", bias)]
        pad = weight.shape[2] // 2
        out = node("Conv", inputs, name + ".conv", pads=[pad] * 4, strides=list(block[0].stride))
        return node("Relu", [out], name)

    def double(source, name):
        scales = constant(name + ".scales", np.array([1, 1, 2, 2], np.float32))
        return node(
            "Resize", [source, "", scales], name,
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )

    a = "images"
    for n, block in enumerate(model.stem):
        a = convolve(block, a, f"stem{n}")
    near = node("Add", [convolve(model.near, a, "near"), a], "near.sum")
    middle = convolve(model.middle[1], convolve(model.middle[0], near, "middle0"), "middle1")
    far = convolve(model.far[1], convolve(model.far[0], middle, "far0"), "far1")
    middle = node("Add", [convolve(model.fuse_middle, middle, "fuse_middle"), double(far, "far.up")], "middle.sum")
    near = node("Add", [near, double(convolve(model.fuse_near, middle, "fuse_near"), "middle.up")], "near.all")
    head = convolve(model.head, convolve(model.merge, near, "merge"), "head")
    last = [constant("out.w", model.out.weight.detach().numpy()), constant("out.b", model.out.bias.detach().numpy())]
    raw = node("Conv", [head, *last], "raw")
    flat = node("Reshape", [raw, constant("flat.shape", np.array([0, 4 + len(NAMES), -1], np.int64))], "flat")
    split = constant("split", np.array([2, 2, len(NAMES)], np.int64))
    nodes.append(helper.make_node("Split", [flat, split], ["before.raw", "after.raw", "scores.raw"], axis=1))
    stride = constant("stride", np.array(STRIDE, np.float32))
    before = node("Mul", [node("Softplus", ["before.raw"], "before.soft"), stride], "before")
    after = node("Mul", [node("Softplus", ["after.raw"], "after.soft"), stride], "after")
    cx, cy = grid()
    cells = constant("cells", torch.stack([cx, cy])[None].numpy())
    shift = node("Mul", [node("Sub", [after, before], "shift2"), constant("half", np.array(0.5, np.float32))], "shift")
    centre = node("Add", [cells, shift], "centre")
    size = node("Add", [before, after], "size")
    node("Concat", [centre, size, node("Sigmoid", ["scores.raw"], "scores")], "output0", axis=1)
    graph = helper.make_graph(
        nodes,
        "nvr-demo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 4 + len(NAMES), GRID_W * GRID_H])],
        tensors,
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    result.producer_name = "nvr demo-model/train.py"
    facts = {
        "task": "detect",
        "names": str(dict(enumerate(NAMES))),
        "stride": str(STRIDE),
        "imgsz": str([HEIGHT, WIDTH]),
        "channels": "3",
        "description": "demo model trained on synthetic nvrtestsrc scenes only",
        "license": "MIT OR Apache-2.0",
    }
    for key, value in facts.items():
        entry = result.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(result, full_check=True)
    onnx.save(result, path)


def suppress(boxes, scores, limit=0.45):
    """Indices of the boxes that stay, best first."""
    order, kept = np.argsort(-scores), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[iou(boxes[best], boxes[order]) <= limit]
    return kept


def iou(box, others):
    w = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    h = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    inter = w.clip(0) * h.clip(0)
    area = lambda r: (r[..., 2] - r[..., 0]) * (r[..., 3] - r[..., 1])
    return inter / (area(box) + area(others) - inter)


def score(session, binary, threshold, *arguments, quality=None):
    """Recall and precision at IoU 0.5. What is in view but not reported counts neither way."""
    found = missed = wrong = 0
    for facts, picture in records(binary, *arguments):
        if quality:
            encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        small, scale, left, top = letterbox(picture)
        x = np.ascontiguousarray(small[:, :, ::-1].transpose(2, 0, 1))[None].astype(np.float32) / 255
        out = session.run(None, {"images": x})[0][0]
        truth = boxes_of(facts, scale, left, top)
        classes, scores = out[4:].argmax(0), out[4:].max(0)
        keep = scores > threshold
        cx, cy, w, h = out[:4, keep]
        boxes, classes, scores = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1), classes[keep], scores[keep]
        free = np.ones(len(truth), bool)
        for k in range(len(NAMES)):
            mine = np.flatnonzero(classes == k)
            for n in suppress(boxes[mine], scores[mine]):
                box = boxes[mine[n]]
                over = iou(box, truth[:, :4]) * (free & (truth[:, 4] == k)) if len(truth) else np.zeros(0)
                if len(over) and over.max() >= 0.5:
                    free[over.argmax()] = False
                    found += bool(truth[over.argmax(), 5])
                else:
                    hidden = truth[truth[:, 5] == 0]
                    wrong += not (len(hidden) and iou(box, hidden[:, :4]).max() > 0.2)
        missed += int((free & (truth[:, 5] == 1)).sum()) if len(truth) else 0
    recall, precision = found / max(1, found + missed), found / max(1, found + wrong)
    return recall, precision, found + missed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dump-scene", required=True, help="the built example of nvr-core")
    parser.add_argument("--out", required=True, help="ONNX file to write")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=4, help="per scene")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0, help="of the scenes; keep below a million")
    parser.add_argument("--init", help="ONNX file of an earlier run to go on from, at a lower rate")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    start = time.monotonic()
    data = load(arguments.dump_scene, arguments.scenes, arguments.frames, arguments.first_seed)
    print(f"{len(data[0])} pictures in {time.monotonic() - start:.0f} s", flush=True)
    export(train(data, arguments.steps, arguments.batch, arguments.seed, arguments.init), arguments.out)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(arguments.out, options)
    x = {"images": np.zeros((1, 3, HEIGHT, WIDTH), np.float32)}
    session.run(None, x)
    start = time.monotonic()
    for _ in range(50):
        session.run(None, x)
    print(f"{(time.monotonic() - start) * 20:.1f} ms per picture on one thread")
    # Seeds from a million up are never trained on.
    for night in ("false", "true"):
        for scene in ("yard", "street", "room"):
            for width, height in ((640, 360), (1280, 720), (704, 576)):
                common = ("--scenes", 25, "--frames", 4, "--first-seed", 1_000_000, "--scene", scene)
                common += ("--night", night, "--width", width, "--height", height, "--objects", 4)
                for quality in (None, 35):
                    recall, precision, count = score(session, arguments.dump_scene, 0.5, *common, quality=quality)
                    print(
                        f"{scene:6} {width}x{height} {'night' if night == 'true' else 'day':5} "
                        f"{'jpeg 35' if quality else 'raw':7} recall {recall:.3f} precision {precision:.3f} of {count}"
                    )


if __name__ == "__main__":
    main()
