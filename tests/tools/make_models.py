#!/usr/bin/env python3
"""Makes the little models in tests/data/models: one for every kind of input and output that a detector may have.

All of them find the one coloured rectangle in a dark picture: its corners are the first and last columns and rows
with a pixel above half brightness, its class (0 red, 1 green, 2 blue) the strongest channel, its confidence 0.9.
So a test knows the right answer for any picture. They have no weights; what they are is in this file.

    python3 tests/tools/make_models.py      # needs the onnx package
"""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

OUT = pathlib.Path(__file__).resolve().parents[1] / "data/models"
NAMES = "{0: 'red', 1: 'green', 2: 'blue'}"


class Graph:
    """Nodes and constants in the making; every method returns the name of its result."""

    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def op(self, kind, *inputs, name=None, **attributes):
        self.count += 1
        name = name or f"t{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def const(self, value, dtype):
        self.count += 1
        name = f"c{self.count}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def floats(self, *values):
        return self.const(list(values), np.float32)

    def ints(self, *values):
        return self.const(list(values), np.int64)

    def find(self, picture, white):
        """From N×3×H×W: x1 y1 x2 y2 in pixels, confidence, class, each N×1, float."""
        brightest = self.op("ReduceMax", picture, axes=[1], keepdims=0)
        lit = self.op("Cast", self.op("Greater", brightest, self.floats(white / 2)), to=T.FLOAT)
        edges = {}
        for side, across in (("x", 1), ("y", 2)):
            profile = self.op("ReduceMax", lit, axes=[across], keepdims=0)
            first = self.op("ArgMax", profile, axis=1, keepdims=1)
            last = self.op("ArgMax", profile, axis=1, keepdims=1, select_last_index=1)
            edges[side] = (
                self.op("Cast", first, to=T.FLOAT),
                self.op("Add", self.op("Cast", last, to=T.FLOAT), self.floats(1)),
            )
        any_lit = self.op("Reshape", self.op("ReduceMax", lit, axes=[1, 2], keepdims=0), self.ints(-1, 1))
        confidence = self.op("Mul", any_lit, self.floats(0.9))
        sums = self.op("ReduceSum", picture, self.ints(2, 3), keepdims=0)
        cls = self.op("Cast", self.op("ArgMax", sums, axis=1, keepdims=1), to=T.FLOAT)
        (x1, x2), (y1, y2) = edges["x"], edges["y"]
        return x1, y1, x2, y2, confidence, cls

    def centre(self, x1, y1, x2, y2):
        half = self.floats(0.5)
        mean = lambda a, b: self.op("Mul", self.op("Add", a, b), half)
        return mean(x1, x2), mean(y1, y2), self.op("Sub", x2, x1), self.op("Sub", y2, y1)

    def one_hot(self, cls, confidence, low=0.0, high=1.0):
        """N×3: `confidence` (times `high`) in the column of the class."""
        hit = self.op("Cast", self.op("Equal", cls, self.floats(0, 1, 2)), to=T.FLOAT)
        span = self.op("Mul", hit, self.floats(high - low))
        return self.op("Mul", self.op("Add", span, self.floats(low)), confidence)

    def row(self, *columns):
        return self.op("Concat", *columns, axis=1)

    def table(self, row, rows, name):
        """N×columns to N×rows×columns: the row first, zeros below."""
        first = self.op("Unsqueeze", row, self.ints(1))
        return self.op("Pad", first, self.ints(0, 0, 0, 0, rows - 1, 0), name=name)

    def save(self, file, inputs, outputs, metadata=None):
        graph = helper.make_graph(
            self.nodes,
            file,
            [helper.make_tensor_value_info(*i) for i in inputs],
            [helper.make_tensor_value_info(*o) for o in outputs],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        model.producer_name = "nvr tests"
        for key, value in (metadata or {}).items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.checker.check_model(model)
        onnx.save(model, OUT / f"{file}.onnx")


def end_to_end(file, batch=1, height=64, width=64, half=False, metadata=None):
    g = Graph()
    kind = T.FLOAT16 if half else T.FLOAT
    picture = g.op("Cast", "images", to=T.FLOAT) if half else "images"
    table = g.table(g.row(*g.find(picture, 1.0)), 300, "wide" if half else "output0")
    if half:
        g.op("Cast", table, to=T.FLOAT16, name="output0")
    g.save(
        file,
        [("images", kind, [batch, 3, height, width])],
        [("output0", kind, [batch, 300, 6])],
        {"names": NAMES, "task": "detect", **(metadata or {})},
    )


def nhwc_ssd():
    g = Graph()
    picture = g.op("Transpose", g.op("Cast", "image_tensor", to=T.FLOAT), perm=[0, 3, 1, 2])
    x1, y1, x2, y2, confidence, cls = g.find(picture, 255.0)
    part = lambda v, side: g.op("Div", v, g.floats(side))
    g.table(g.row(part(y1, 48), part(x1, 64), part(y2, 48), part(x2, 64)), 10, "detection_boxes")
    pad = lambda v, name: g.op("Pad", v, g.ints(0, 0, 0, 9), name=name)
    pad(confidence, "detection_scores")
    pad(g.op("Add", cls, g.floats(1)), "detection_classes")
    g.op("Reshape", g.op("Ceil", confidence), g.ints(1), name="num_detections")
    g.save(
        "ssd_uint8_nhwc",
        [("image_tensor", T.UINT8, [1, 48, 64, 3])],
        [
            ("num_detections", T.FLOAT, [1]),
            ("detection_boxes", T.FLOAT, [1, 10, 4]),
            ("detection_scores", T.FLOAT, [1, 10]),
            ("detection_classes", T.FLOAT, [1, 10]),
        ],
    )


def yolov8_one_class():
    g = Graph()
    *corners, confidence, _ = g.find("images", 1.0)
    row = g.row(*g.centre(*corners), confidence)
    g.op("Transpose", g.table(row, 84, "cells"), perm=[0, 2, 1], name="output0")
    g.save(
        "yolov8_one_class",
        [("images", T.FLOAT, [1, 3, 64, 64])],
        [("output0", T.FLOAT, [1, 5, 84])],
        {"names": "{0: 'box'}", "task": "detect"},
    )


def detr_logits():
    g = Graph()
    *corners, confidence, cls = g.find("images", 1.0)
    # The sigmoid of 2.1972 is 0.9; all other queries say no at -5.
    found = g.op("Ceil", confidence)
    logits = g.op("Sub", g.one_hot(cls, found, 0.0, 7.1972), g.floats(5.0))
    first = g.op("Unsqueeze", logits, g.ints(1))
    g.op("Pad", first, g.ints(0, 0, 0, 0, 19, 0), g.const(-5.0, np.float32), name="logits")
    parts = g.op("Div", g.row(*g.centre(*corners)), g.floats(64.0))
    g.table(parts, 20, "pred_boxes")
    g.save(
        "detr_logits",
        [("images", T.FLOAT, [1, 3, 64, 64])],
        [("logits", T.FLOAT, [1, 20, 3]), ("pred_boxes", T.FLOAT, [1, 20, 4])],
        {"names": NAMES},
    )


def detr_int64():
    """Class ids as int64, boxes in pixels of the frame, whose size is an input. Any batch."""
    g = Graph()
    *corners, confidence, cls = g.find("images", 1.0)
    size = g.op("Cast", "orig_target_sizes", to=T.FLOAT)
    scale = g.op("Div", g.op("Concat", size, size, axis=1), g.floats(64.0))
    g.table(g.op("Mul", g.row(*corners), scale), 5, "boxes")
    pad = lambda v, name: g.op("Pad", v, g.ints(0, 0, 0, 4), name=name)
    pad(confidence, "scores")
    g.op("Cast", pad(cls, "classes"), to=T.INT64, name="labels")
    g.save(
        "detr_int64",
        [("images", T.FLOAT, ["N", 3, 64, 64]), ("orig_target_sizes", T.INT64, ["N", 2])],
        [("labels", T.INT64, ["N", 5]), ("boxes", T.FLOAT, ["N", 5, 4]), ("scores", T.FLOAT, ["N", 5])],
        {"names": NAMES},
    )


def nan_output():
    """As the end-to-end one, but what is above half brightness makes every number NaN."""
    g = Graph()
    row = g.row(*g.find("images", 1.0))
    lit = g.op("Slice", row, g.ints(4), g.ints(5), g.ints(1))
    poison = g.op("Sqrt", g.op("Neg", lit))
    g.table(g.op("Add", row, poison), 300, "output0")
    g.save("nan_output", [("images", T.FLOAT, [1, 3, 64, 64])], [("output0", T.FLOAT, [1, 300, 6])], {"names": NAMES})


def classifier():
    g = Graph()
    sums = g.op("ReduceSum", "images", g.ints(2, 3), keepdims=0)
    g.op("Pad", sums, g.ints(0, 0, 0, 997), name="logits")
    g.save("classifier", [("images", T.FLOAT, [1, 3, 64, 64])], [("logits", T.FLOAT, [1, 1000])])


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    end_to_end("end_to_end")
    end_to_end("end_to_end_fp16", half=True)
    end_to_end("end_to_end_any_batch", batch="N")
    end_to_end("end_to_end_any_size", height="H", width="W", metadata={"imgsz": "[96, 160]"})
    end_to_end("end_to_end_batch_4", batch=4)
    nhwc_ssd()
    yolov8_one_class()
    detr_logits()
    detr_int64()
    nan_output()
    classifier()
    # A label more than there are classes.
    g = Graph()
    *corners, confidence, cls = g.find("images", 1.0)
    row = g.row(*g.centre(*corners), g.one_hot(cls, confidence))
    g.op("Transpose", g.table(row, 84, "cells"), perm=[0, 2, 1], name="output0")
    g.save(
        "yolov8_three_classes_four_names",
        [("images", T.FLOAT, [1, 3, 64, 64])],
        [("output0", T.FLOAT, [1, 7, 84])],
        {"names": "{0: 'red', 1: 'green', 2: 'blue', 3: 'grey'}", "task": "detect"},
    )
    for path in sorted(OUT.glob("*.onnx")):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
