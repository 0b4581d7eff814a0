#!/usr/bin/env python3
"""Makes the tiny detectors that the nvrinfer tests run. Needs the `onnx` package; the results are committed.

Each looks at the mean brightness of its input and answers with one box, whose class is brightness x 10 rounded:
a frame of one grey therefore says by its class which frame it was. Layout: end to end, N x 2 x 6.
"""
import pathlib
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh
import numpy as np

HERE = pathlib.Path(__file__).parent


def brightness(name, batch, prefix, classes=11, score=0.9, work=0, nan=False, moody=False, stem=False):
    """`work` squares a 256 x 256 matrix that many times, so that one inference takes measurable time. `moody` gives
    boxes that are no numbers for frames that are nearly white. `stem` puts a Focus stem in front, which takes the mean
    of every four pixels."""
    nodes, inits = [], []

    def const(key, value):
        inits.append(nh.from_array(np.asarray(value), key))
        return key

    pixels = "images"
    if stem:
        numbers = {key: const(key, np.array([n], np.int64)) for key, n in
                   (("from0", 0), ("from1", 1), ("rows", 2), ("columns", 3), ("end", 2**63 - 1))}
        for i, (row, column) in enumerate([("from0", "from0"), ("from1", "from0"), ("from0", "from1"), ("from1", "from1")]):
            nodes.append(h.make_node("Slice", ["images", row, "end", "rows", "rows"], [f"half{i}"]))
            nodes.append(h.make_node("Slice", [f"half{i}", column, "end", "columns", "rows"], [f"quarter{i}"]))
        nodes.append(h.make_node("Concat", [f"quarter{i}" for i in range(4)], ["stack"], axis=1))
        const("weights", np.full((1, 12, 1, 1), 1 / 12, np.float32))
        nodes.append(h.make_node("Conv", ["stack", "weights"], ["pixels"], kernel_shape=[1, 1]))
        pixels = "pixels"
    nodes.append(h.make_node("ReduceMean", [pixels], ["mean"], axes=[1, 2, 3], keepdims=0))
    mean = "mean"
    if work:
        nodes.append(h.make_node("ReduceMean", ["mean"], ["scalar"], axes=[0], keepdims=1))
        nodes.append(h.make_node("Expand", ["scalar", const("square", np.array([256, 256], np.int64))], ["m0"]))
        for i in range(work):
            nodes.append(h.make_node("MatMul", [f"m{i}", f"m{i}"], [f"p{i}"]))
            nodes.append(h.make_node("Mul", [f"p{i}", const(f"k{i}", np.float32(1 / 256))], [f"m{i + 1}"]))
        nodes.append(h.make_node("ReduceMean", [f"m{work}"], ["burnt"], axes=[0, 1], keepdims=0))
        nodes.append(h.make_node("Mul", ["burnt", const("zero", np.float32(0))], ["nothing"]))
        nodes.append(h.make_node("Add", ["mean", "nothing"], ["mean2"]))
        mean = "mean2"
    nodes.append(h.make_node("Mul", [mean, const("ten", np.float32(10))], ["scaled"]))
    nodes.append(h.make_node("Round", ["scaled"], ["class"]))
    nodes.append(h.make_node("Reshape", ["class", const("column", np.array([-1, 1, 1], np.int64))], ["class3"]))
    nodes.append(h.make_node("Mul", ["class3", const("none", np.float32(0))], ["zero3"]))
    if moody:
        nodes.append(h.make_node("Sub", [const("limit", np.float32(0.95)), mean], ["left"]))
        nodes.append(h.make_node("Sqrt", ["left"], ["root"]))
        nodes.append(h.make_node("Mul", ["root", "none"], ["mood"]))
        nodes.append(h.make_node("Reshape", ["mood", "column"], ["mood3"]))
        nodes.append(h.make_node("Add", ["zero3", "mood3"], ["moody3"]))
    box = np.array([[[8, 8, 24, 24, np.nan if nan else score]]], np.float32)
    nodes.append(h.make_node("Add", ["moody3" if moody else "zero3", const("box", box)], ["boxes"]))
    nodes.append(h.make_node("Concat", ["boxes", "class3"], ["first"], axis=2))
    # A second row without an object: one row alone could be a grid of one cell.
    nodes.append(h.make_node("Concat", ["zero3"] * 6, ["second"], axis=2))
    nodes.append(h.make_node("Concat", ["first", "second"], ["output0"], axis=1))

    graph = h.make_graph(
        nodes, name,
        [h.make_tensor_value_info("images", T.FLOAT, [batch, 3, 32, 32])],
        [h.make_tensor_value_info("output0", T.FLOAT, [batch, 2, 6])], inits)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8, producer_name="nvr tests")
    h.set_model_props(model, {
        "names": "{" + ", ".join(f"{i}: '{prefix}{i}'" for i in range(classes)) + "}",
        "task": "detect", "stride": "32", "imgsz": "[32, 32]",
    })
    onnx.checker.check_model(model)
    onnx.save(model, HERE / f"{name}.onnx")


brightness("grey_a", 1, "a")
brightness("grey_b", 1, "b")
brightness("grey_batch", "N", "n")
brightness("grey_batch4", 4, "f")
brightness("grey_slow", 1, "s", work=120)
brightness("grey_nan", 1, "x", nan=True)
brightness("grey_moody", 1, "m", moody=True)
brightness("grey_stem", 1, "e", stem=True)
