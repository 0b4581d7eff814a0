#!/usr/bin/env python3
"""ByteTrack as its paper and published settings describe it, in NumPy: the yardstick for the tracker.

Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", 2022, with the settings of its
MOT17 experiments: high threshold 0.6, low 0.1, new tracks from 0.7, matching cost limits 0.8 (overlap times score),
0.5 and 0.7, buffer of 30 frames at 30 fps, duplicates from an overlap of 0.85. The Kalman filter is the eight-number
one of DeepSORT (centre, aspect ratio, height). Written independently of the Rust tracker; time is counted in frames
as the original does.

    reference_track.py           prints a table and writes tests/data/reference/tracking.json
    reference_track.py check     checks the scorer below against known figures

Needs numpy and scipy; the shared test data in NVR_TEST_DATA or ../shared/data.
"""

import json
import os
import pathlib
import sys

import numpy as np
from scipy.optimize import linear_sum_assignment

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("NVR_TEST_DATA") or ROOT / "../shared/data") / "mot"
OUT = ROOT / "tests/data/reference/tracking.json"

# MOT16-11 comes without its frame rate, which is 30.
SEQUENCES = {
    "TUD-Campus": 25,
    "PETS09-S2L1": 7,
    "KITTI-17": 10,
    "ETH-Sunnyday": 14,
    "ADL-Rundle-8": 30,
    "MOT16-11": 30,
}


def rows(path):
    """MOTChallenge rows by frame: id, x, y, w, h, score or flag."""
    frames = {}
    for line in path.read_text().splitlines():
        values = [float(value) for value in line.split(",")]
        frames.setdefault(int(values[0]), []).append(values[1:7])
    return {frame: np.array(found) for frame, found in frames.items()}


def iou(a, b):
    """Overlap of every box of `a` with every box of `b`; x, y, w, h."""
    a, b = np.asarray(a, float).reshape(-1, 1, 4), np.asarray(b, float).reshape(1, -1, 4)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    inner = np.clip(high - low, 0, None).prod(-1)
    total = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inner
    return inner / np.maximum(total, 1e-9)


def match(cost, limit):
    """Pairs of least total cost where each must be below `limit`; leaving both alone costs `limit`."""
    if cost.size == 0:
        return [], list(range(cost.shape[0])), list(range(cost.shape[1]))
    n, m = cost.shape
    full = np.full((n + m, n + m), limit / 2)
    full[n:, m:] = 0
    full[:n, :m] = cost
    pairs = [(i, j) for i, j in zip(*linear_sum_assignment(full)) if i < n and j < m and cost[i, j] < limit]
    left, right = {i for i, _ in pairs}, {j for _, j in pairs}
    return pairs, [i for i in range(n) if i not in left], [j for j in range(m) if j not in right]


# --- the tracker -----------------------------------------------------------------------------------------------


class Kalman:
    F = np.eye(8) + np.eye(8, k=4)
    H = np.eye(4, 8)

    def __init__(self, measured):
        self.x = np.r_[measured, np.zeros(4)]
        h = measured[3]
        self.P = np.diag(np.square([h / 10, h / 10, 1e-2, h / 10, h / 16, h / 16, 1e-5, h / 16]))

    def predict(self, lost):
        if lost:
            self.x[7] = 0
        h = self.x[3]
        Q = np.diag(np.square([h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160]))
        self.x = self.F @ self.x
        self.P = self.F @ self.P @ self.F.T + Q

    def update(self, measured):
        h = self.x[3]
        R = np.diag(np.square([h / 20, h / 20, 1e-1, h / 20]))
        S = self.H @ self.P @ self.H.T + R
        K = self.P @ self.H.T @ np.linalg.inv(S)
        self.x = self.x + K @ (measured - self.H @ self.x)
        self.P = self.P - K @ S @ K.T


def measured(box):
    x, y, w, h = box
    return np.array([x + w / 2, y + h / 2, w / h, h])


class Track:
    def __init__(self, box, score, frame, identity):
        self.kalman, self.score, self.identity = Kalman(measured(box)), score, identity
        self.born = self.seen = frame
        self.confirmed, self.lost = frame == 1, False

    def box(self):
        cx, cy, a, h = self.kalman.x[:4]
        return np.array([cx - a * h / 2, cy - h / 2, a * h, h])

    def found(self, box, score, frame):
        self.kalman.update(measured(box))
        self.score, self.seen, self.confirmed, self.lost = score, frame, True, False


class ByteTrack:
    def __init__(self, fps, high=0.6, low=0.1, new=0.7, buffer=30):
        self.high, self.low, self.new, self.buffer = high, low, new, int(fps / 30 * buffer)
        self.tracks, self.ids = [], 0

    def update(self, frame, boxes, scores):
        confirmed = [t for t in self.tracks if t.confirmed]
        fresh = [t for t in self.tracks if not t.confirmed]
        for track in confirmed:
            track.kalman.predict(track.lost)
        sure = np.flatnonzero(scores >= self.high)
        doubtful = np.flatnonzero((scores > self.low) & (scores < self.high))

        def cost(tracks, which, fused):
            overlap = iou([t.box() for t in tracks], boxes[which])
            return 1 - overlap * (scores[which] if fused else 1)

        def take(tracks, which, limit, fused):
            pairs, left, free = match(cost(tracks, which, fused), limit)
            for i, j in pairs:
                tracks[i].found(boxes[which[j]], scores[which[j]], frame)
            return [tracks[i] for i in left], which[free]

        left, sure = take(confirmed, sure, 0.8, True)
        left, _ = take([t for t in left if not t.lost], doubtful, 0.5, False)
        for track in left:
            track.lost = True
        unseen, sure = take(fresh, sure, 0.7, True)
        self.tracks = [t for t in self.tracks if t not in unseen]
        for track in self.tracks:
            if track.seen < frame:
                track.lost = True
        for j in sure:
            if scores[j] >= self.new:
                self.ids += 1
                self.tracks.append(Track(boxes[j], scores[j], frame, self.ids))
        self.tracks = [t for t in self.tracks if not t.lost or frame - t.seen <= self.buffer]

        here, away = [t for t in self.tracks if not t.lost], [t for t in self.tracks if t.lost]
        overlap = iou([t.box() for t in here], [t.box() for t in away])
        twice = set()
        for i, j in zip(*np.nonzero(overlap > 0.85)):
            older = here[i].seen - here[i].born > away[j].seen - away[j].born
            twice.add(id(away[j] if older else here[i]))
        self.tracks = [t for t in self.tracks if id(t) not in twice]
        return [(t.identity, t.box()) for t in self.tracks if t.confirmed and not t.lost]


# --- the scorer ------------------------------------------------------------------------------------------------


def score(truth, found):
    """CLEAR MOT and identity measures at an overlap of 0.5; frames map to rows of id, x, y, w, h."""
    false, missed, switches, total, said = 0, 0, 0, 0, 0
    last, now = {}, {}
    together = {}
    for frame in sorted(set(truth) | set(found)):
        gt, tr = truth.get(frame, np.zeros((0, 6))), found.get(frame, np.zeros((0, 5)))
        total, said = total + len(gt), said + len(tr)
        overlap = iou(gt[:, 1:5], tr[:, 1:5])
        for i, j in zip(*np.nonzero(overlap >= 0.5)):
            key = (gt[i, 0], tr[j, 0])
            together[key] = together.get(key, 0) + 1
        # Who was matched stays matched as long as the boxes overlap.
        pairs, free_gt, free_tr = {}, set(range(len(gt))), set(range(len(tr)))
        for i in range(len(gt)):
            for j in list(free_tr):
                if now.get(gt[i, 0]) == tr[j, 0] and overlap[i, j] >= 0.5:
                    pairs[i] = j
                    free_gt.discard(i)
                    free_tr.discard(j)
        rest_gt, rest_tr = sorted(free_gt), sorted(free_tr)
        cost = np.where(overlap >= 0.5, 1 - overlap, 1e6)[np.ix_(rest_gt, rest_tr)]
        for i, j in zip(*linear_sum_assignment(cost)):
            if cost[i, j] < 1:
                pairs[rest_gt[i]] = rest_tr[j]
        now = {}
        for i, j in pairs.items():
            who, what = gt[i, 0], tr[j, 0]
            switches += last.get(who, what) != what
            last[who] = now[who] = what
        missed += len(gt) - len(pairs)
        false += len(tr) - len(pairs)
    who, what = sorted({k[0] for k in together}), sorted({k[1] for k in together})
    gain = np.zeros((len(who), len(what)))
    for (a, b), count in together.items():
        gain[who.index(a), what.index(b)] = count
    agreed = gain[linear_sum_assignment(-gain)].sum()
    return {
        "mota": round(float(1 - (false + missed + switches) / total), 4),
        "idf1": round(float(2 * agreed / (total + said)), 4),
        "switches": int(switches),
        "false": int(false),
        "missed": int(missed),
    }


def truth_of(sequence):
    truth = {frame: found[found[:, 5] != 0] for frame, found in rows(DATA / sequence / "gt/gt.txt").items()}
    return {frame: found for frame, found in truth.items() if len(found)}


def check():
    result = score(truth_of("TUD-Campus"), rows(DATA / "TUD-Campus/res_scorercheck.txt"))
    print(result)
    good = round(result["mota"], 3) == 0.526 and round(result["idf1"], 3) == 0.558 and result["switches"] == 7
    sys.exit(0 if good else "the scorer is wrong: .526, .558 and 7 switches are right")


def main():
    if sys.argv[1:] == ["check"]:
        check()
    results = {}
    for sequence, fps in SEQUENCES.items():
        results[sequence] = {"fps": fps, **run(sequence, fps)}
        # The same thresholds as the tracker under test has for these detections.
        results[sequence]["same_thresholds"] = run(sequence, fps, high=0.65, new=0.85)
        print(sequence, results[sequence])
    OUT.write_text(json.dumps(results, indent=1) + "\n")


def run(sequence, fps, **settings):
    truth, seen = truth_of(sequence), rows(DATA / sequence / "det/det.txt")
    tracker, found = ByteTrack(fps, **settings), {}
    for frame in range(1, max(max(truth), max(seen)) + 1):
        rows_here = seen.get(frame, np.zeros((0, 6)))
        tracks = tracker.update(frame, rows_here[:, 1:5], rows_here[:, 5])
        if tracks:
            found[frame] = np.array([[identity, *box] for identity, box in tracks])
    return score(truth, found)


if __name__ == "__main__":
    main()
