"""What the benchmarks share: processes that always end, /proc readings, a broker, cameras, data files."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")


def fail(text):
    sys.exit(f"bench: {text}")


def data(path):
    """A file of the shared test data: NVR_TEST_DATA, else ../shared/data beside the repository. None if missing."""
    root = pathlib.Path(os.environ.get("NVR_TEST_DATA") or ROOT / "../shared/data")
    return root / path if (root / path).exists() else None


def videos(given):
    """What cameras show: the videos that were given, else two of the shared test data, as far as they are there."""
    known = [data(f"videos/{name}") for name in ("swdee_cars.mp4", "x_pets09-s2l1_300f_h264.mp4")]
    return given or [video for video in known if video]


@contextlib.contextmanager
def logs(keep):
    """A folder for the programs' logs. It goes at the end, unless it is to be kept or something fails."""
    folder, finished = pathlib.Path(tempfile.mkdtemp(prefix="nvr-bench-")), False
    try:
        yield folder
        finished = True
    finally:
        if keep or not finished:
            print(f"logs: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def program(name, package):
    """A release binary of the workspace; says how to build it where it is missing. To try a benchmark out, and for no
    figure, NVR_BENCH_BUILD=debug takes the other one."""
    build = os.environ.get("NVR_BENCH_BUILD") or "release"
    path = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / build / name
    if not path.exists():
        fail(f"{path} is missing, build it with: cargo build --release --locked -p {package}")
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def percentile(values, percent):
    """Nearest-rank percentile; NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def tree(pid):
    """A process and all its descendants."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                todo += map(int, children.read_text().split())
    return found


def cpu_seconds(pid):
    """User and system time of a process tree, all threads, those of ended and reaped children included."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15]))
    return total / TICK


def memory(pid):
    """(resident, proportional, peak resident) size of a process tree in MB."""

    def sum_of(name, key):
        total = 0
        for each in tree(pid):
            with contextlib.suppress(OSError):
                for line in pathlib.Path(f"/proc/{each}/{name}").read_text().splitlines():
                    if line.startswith(key):
                        total += int(line.split()[1])
        return total / 1024

    return sum_of("status", "VmRSS:"), sum_of("smaps_rollup", "Pss:"), sum_of("status", "VmHWM:")


@contextlib.contextmanager
def process(command, log, **options):
    """A child in its own process group: SIGINT at the end, SIGKILL for what is left after ten seconds."""
    with open(log, "wb") as out:
        try:
            options = {"stdout": out, "stderr": subprocess.STDOUT, "start_new_session": True, **options}
            child = subprocess.Popen([str(word) for word in command], **options)
        except OSError as error:
            fail(f"{command[0]}: {error}")
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def alive(child, what, log):
    """Ends the benchmark with the log's last lines if the child has ended."""
    if child.poll() is not None:
        tail = pathlib.Path(log).read_text(errors="replace").splitlines()[-15:]
        fail(f"{what} ended with status {child.returncode}; the end of {log}:\n" + "\n".join(tail))


@contextlib.contextmanager
def broker(folder):
    """A mosquitto on a free port with TCP_NODELAY; gives (port, process)."""
    path = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not path:
        fail("mosquitto is missing, install it with: apt-get install mosquitto")
    port, config, log = free_port(), folder / "mosquitto.conf", folder / "mosquitto.log"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    with process([path, "-c", config], log) as child:
        for _ in range(100):
            alive(child, "mosquitto", log)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port, child


@contextlib.contextmanager
def cameras(folder, count, videos, fps=25):
    """bench-cameras; gives its facts with the keys port and cameras, the path of its log, and the process."""
    log, errors = folder / "sent.log", folder / "cameras.log"
    log.unlink(missing_ok=True)
    command = [program("bench-cameras", "nvr-tests --bin bench-cameras"), "--count", count, "--fps", fps]
    command += ["--log", log, "--cache", ROOT / "target/bench"]
    for video in videos:
        command += ["--video", video]
    with open(errors, "wb") as sink:
        # Its standard input is its life line: it ends when this process does, however that happens.
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": sink}
        with process(command, folder / "unused.log", **pipes) as child:
            line = child.stdout.readline()
            if not line:
                child.wait(10)
                alive(child, "bench-cameras", errors)
            yield json.loads(line), log, child
            child.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
