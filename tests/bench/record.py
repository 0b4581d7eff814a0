#!/usr/bin/env python3
"""What recording costs: `nvr-launch recorder` and one `ffmpeg -c copy -f segment` for each camera, turn by turn.

Prints markdown tables: CPU, memory, and system calls for each recorded frame. tests/bench/README.md says what the
columns mean.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import common  # noqa: E402

GROUPS = {
    "socket": "readv recvfrom clock_nanosleep nanosleep recvmsg recvmmsg sendto sendmsg poll ppoll select pselect6 epoll_wait epoll_pwait",
    "threads": "futex sched_yield rt_sigprocmask rt_sigaction set_robust_list clone3 rseq exit",
    "file": "write pwrite64 writev pwritev fsync fdatasync open openat close lseek ftruncate fallocate flock fcntl "
    "newfstatat fstat stat lstat statx statfs mkdir rmdir unlink rename pread64 access getdents64",
    "memory": "mmap munmap mremap brk madvise mprotect",
}
GROUP_OF = {call: group for group, calls in GROUPS.items() for call in calls.split()}


def busy(pids):
    """Nanoseconds that each thread has had a processor; finer than the ticks in /proc/<pid>/stat."""
    found = {}
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                found[task.parent.name] = int(task.read_text().split()[0])
    return found


def used(before, after):
    return sum(after[thread] - before.get(thread, 0) for thread in after) / 1e9


def nvr(args, cameras, folder, port):
    launch = common.program("nvr-launch", "nvr-launch")
    server = cameras[0]["uri"].rsplit("/", 1)[0]
    options = ["--streams", f"0-{len(cameras) - 1}", "--stream-server", server, "--broker", f"mqtt://127.0.0.1:{port}"]
    return [[launch, "recorder", *options, "--location", folder, "--segment-duration", args.segment]]


def ffmpeg(args, cameras, folder, _port):
    commands = []
    for number, camera in enumerate(cameras):
        (folder / str(number)).mkdir(parents=True)
        commands.append(
            ["ffmpeg", "-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp", "-i", camera["uri"], "-c", "copy"]
            + ["-f", "segment", "-segment_time", args.segment, "-segment_format", "mp4", "-reset_timestamps", 1]
            + [folder / str(number) / "%05d.mp4"]
        )
    return commands


PROGRAMS = {"nvr-launch": nvr, "ffmpeg": ffmpeg}


def traced(pids, seconds, log):
    """Number of each system call of some processes, by the name of the thread; `None` where perf may not trace."""
    command = ["perf", "trace", "-s", "-p", ",".join(map(str, pids)), "--", "sleep", str(seconds)]
    with open(log, "w", encoding="utf-8") as sink:
        try:
            done = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, timeout=seconds + 60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
    calls, thread = collections.Counter(), None
    for line in pathlib.Path(log).read_text(errors="replace").splitlines():
        if head := re.match(r"\s*(.+) \((\d+)\), \d+ events", line):
            thread = head[1].strip()
        elif thread and (row := re.match(r"\s+([a-z_0-9]+)\s+(\d+)\s+\d+\s", line)):
            calls[thread, row[1]] += int(row[2])
    return calls if done.returncode == 0 and calls else None


def frames(folder):
    """Pictures in all files of a folder that can be opened."""
    total = 0
    for file in sorted(folder.rglob("*.mp4")):
        command = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-count_packets", "-of", "csv=p=0"]
        command += ["-show_entries", "stream=nb_read_packets", file]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().strip(",")
        total += int(text) if text.isdigit() else 0
    return total


def measure(name, args, cameras, folder, port):
    place = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=args.disk or folder))
    with contextlib.ExitStack() as stack:
        children = []
        for number, command in enumerate(PROGRAMS[name](args, cameras, place, port)):
            log = folder / f"{name}-{number}.log"
            children.append((stack.enter_context(common.process(command, log)), log))
        began = time.monotonic()
        time.sleep(args.settle)
        pids = [child.pid for child, _ in children]
        before, start = busy(pids), time.monotonic()
        time.sleep(args.seconds)
        cores = used(before, busy(pids)) / (time.monotonic() - start)
        memory = [common.memory(pid) for pid in pids]
        calls = None
        if args.trace:
            calls = traced(pids, args.trace, folder / f"{name}.trace")
        ran = time.monotonic() - began
        for child, log in children:
            common.alive(child, name, log)
    result = {"name": name, "cores": cores, "rss_mb": sum(m[0] for m in memory), "pss_mb": sum(m[1] for m in memory)}
    # The first keyframe of a camera may be a group of pictures away.
    result["recorded"] = frames(place) / (len(cameras) * args.fps * ran)
    if calls is not None:
        each = len(cameras) * args.fps * args.trace
        result["calls"] = {f"{thread} {call}": count / each for (thread, call), count in calls.items()}
    shutil.rmtree(place, ignore_errors=True)
    print(f"{name}: {cores:.3f} cores, {result['pss_mb']:.0f} MB, {result['recorded']:.0%} recorded", file=sys.stderr)
    return result


def middle(results, name, key):
    return statistics.median(result[key] for result in results if result["name"] == name)


def calls_of(results, name):
    """Median over the rounds of every thread's system calls per frame; `None` where none was traced."""
    rounds = [result["calls"] for result in results if result["name"] == name and "calls" in result]
    keys = {key for calls in rounds for key in calls}
    return {key: statistics.median(calls.get(key, 0.0) for calls in rounds) for key in keys} if rounds else None


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def report(results, args):
    rows = []
    for key, title, form in [
        ("cores", "CPU, cores", "{:.3f}"),
        ("pss_mb", "PSS, MB", "{:.0f}"),
        ("rss_mb", "RSS, MB", "{:.0f}"),
        ("recorded", "recorded of what was sent", "{:.0%}"),
    ]:
        ours, theirs = (middle(results, name, key) for name in PROGRAMS)
        rows.append([title, form.format(ours), form.format(theirs), f"{ours / theirs:.2f}" if theirs else "–"])
    calls = {name: calls_of(results, name) for name in PROGRAMS}
    if all(calls.values()):
        groups = {name: collections.Counter() for name in PROGRAMS}
        for name, found in calls.items():
            for key, count in found.items():
                groups[name][GROUP_OF.get(key.rsplit(" ", 1)[1], "other")] += count
        for group in [*GROUPS, "other"]:
            ours, theirs = (groups[name][group] for name in PROGRAMS)
            ratio = f"{ours / theirs:.2f}" if theirs else "–"
            rows.append([f"system calls per frame: {group}", f"{ours:.2f}", f"{theirs:.2f}", ratio])
    print(f"{args.cameras} cameras, {args.fps} fps, {os.cpu_count()} cores, {args.rounds} rounds of {args.seconds:g} s\n")
    print(table(["", "nvr-launch", f"{args.cameras} × ffmpeg", "ratio"], rows))
    if not all(calls.values()):
        print("\nNo system calls: that needs perf, and the right to trace.")
        return
    for name in PROGRAMS:
        # Numbers at the end of a thread's name tell cameras apart.
        merged = collections.Counter()
        for key, count in calls[name].items():
            thread, call = key.rsplit(" ", 1)
            merged[re.sub(r"[-:]?\d+$", "", thread), call] += count
        print(f"\n{name}, calls per frame\n")
        common_ones = [each for each in merged.most_common(args.rows) if each[1] >= 0.005]
        print(table(["thread", "call", "per frame"], [[*key, f"{count:.2f}"] for key, count in common_ones]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=12)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=20.0, help="measured time of one program in one round")
    parser.add_argument("--settle", type=float, default=8.0, help="time before that")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--trace", type=float, default=5.0, help="seconds in which system calls are counted, 0 for none")
    parser.add_argument("--segment", type=int, default=10, help="seconds of one file")
    parser.add_argument("--rows", type=int, default=16, help="kinds of system calls to list")
    parser.add_argument("--video", action="append", help="video for the cameras; default: two of the shared test data")
    parser.add_argument("--disk", help="directory to record to, on the disk that counts; default: a temporary one")
    parser.add_argument("--json", help="also write all figures to this file")
    parser.add_argument("--keep", action="store_true", help="keep the programs' logs")
    args = parser.parse_args()
    for program in ("ffmpeg", "ffprobe"):
        if not shutil.which(program):
            common.fail(f"{program} is missing, install it with: apt-get install ffmpeg")
    results = []
    with common.logs(args.keep) as folder, contextlib.ExitStack() as stack:
        port, _ = stack.enter_context(common.broker(folder))
        facts, _, _ = stack.enter_context(common.cameras(folder, args.cameras, common.videos(args.video), args.fps))
        for number in range(args.rounds):
            order = list(PROGRAMS) if number % 2 == 0 else list(reversed(PROGRAMS))
            results += [measure(name, args, facts["cameras"], folder, port) for name in order]
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
    report(results, args)


if __name__ == "__main__":
    main()
