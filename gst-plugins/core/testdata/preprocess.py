"""Writes preprocess.bin: what OpenCV makes of the pictures that src/preprocess/tests.rs draws by formula.

Run with numpy and opencv-python: python testdata/preprocess.py
The file holds the expected codes (RGB, row by row, padding included) of all CASES, one after the other.
"""

from pathlib import Path

import cv2
import numpy as np

# (format, frame width, frame height, fit, model width, model height); the same list is in the test.
CASES = [
    ("rgb", 67, 45, "stretch", 40, 36),
    ("rgb", 67, 45, "top-left", 48, 48),
    ("rgb", 67, 45, "centre", 40, 48),
    ("rgb", 33, 21, "centre", 48, 40),
    ("rgb", 160, 90, "stretch", 20, 20),
    ("rgb", 45, 67, "top-left", 32, 32),
    ("nv12", 66, 46, "stretch", 40, 36),
    ("nv12", 64, 36, "top-left", 40, 40),
    ("nv12", 30, 20, "centre", 48, 48),
]
PAD = 114


def wave(n):
    """A triangle between 0 and 255."""
    return np.abs(n % 510 - 255)


def rgb(width, height):
    y, x = np.mgrid[:height, :width]
    planes = [wave(5 * x + 3 * y), wave(2 * x + 7 * y + 85), wave(9 * x + y + 170)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def nv12(width, height):
    y, x = np.mgrid[:height, :width]
    luma = 60 + wave(5 * x + 3 * y) * 130 // 255
    v, u = np.mgrid[: height // 2, : width // 2]
    chroma = np.stack([112 + wave(20 * u + 6 * v) * 32 // 255, 112 + wave(8 * u + 30 * v) * 32 // 255], axis=-1)
    data = np.concatenate([luma.reshape(height, width), chroma.reshape(height // 2, width)])
    return cv2.cvtColor(data.astype(np.uint8), cv2.COLOR_YUV2RGB_NV12)


def fit(image, how, width, height):
    h, w = image.shape[:2]
    ratio = min(height / h, width / w)
    out = np.full((height, width, 3), PAD, np.uint8)
    if how == "stretch":
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if how == "top-left":  # YOLOX, yolox/data/data_augment.py, preproc
        size, left, top = (int(w * ratio), int(h * ratio)), 0, 0
    else:  # Ultralytics, ultralytics/data/augment.py, LetterBox
        size = round(w * ratio), round(h * ratio)
        left, top = round((width - size[0]) / 2 - 0.1), round((height - size[1]) / 2 - 0.1)
    out[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return out


def main():
    draw = {"rgb": rgb, "nv12": nv12}
    tensors = [fit(draw[kind](w, h), how, mw, mh) for kind, w, h, how, mw, mh in CASES]
    Path(__file__).with_suffix(".bin").write_bytes(b"".join(t.tobytes() for t in tensors))


if __name__ == "__main__":
    main()
