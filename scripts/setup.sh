#!/usr/bin/env bash
# Makes a machine ready to build, run and test: Debian 12 and 13 by apt, other systems by naming what is missing.
# Safe to run again: it looks first and installs only what is not there. See docs/guide/install.md.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
Usage: scripts/setup.sh [--check] [--dev | --runtime]

Installs what building and running need: GStreamer and its plugins, a C compiler, ONNX Runtime.
  --check    install nothing; name what is missing and exit 1 if anything is
  --dev      also what the tests need: mosquitto, ffmpeg, openssl, OpenGL, cargo-nextest, cargo-deny
  --runtime  only what running needs: neither headers nor a compiler nor Rust

ONNX Runtime: a library that the system has is used. Otherwise it is taken out of the onnxruntime Python
wheel, checked against the hash in scripts/, and put into the data directory: NVR_DATA_DIR, else
$XDG_DATA_HOME/nvr, else ~/.local/share/nvr; by sudo /usr/local/share/nvr. No Python package is installed.
Where the wheel cannot be had, the distribution's package is installed, if it has one.
TEXT
}

check=false dev=false runtime=false
for argument in "$@"; do
    case $argument in
        --check) check=true ;;
        --dev) dev=true ;;
        --runtime) runtime=true ;;
        -h | --help) usage; exit 0 ;;
        *) echo "setup: unknown option $argument" >&2; usage >&2; exit 2 ;;
    esac
done

min_rust=1.92
# Without a home, and as root by sudo, whose home no user's nvr-launch looks into, the folder for the whole machine.
if [ -n "${NVR_DATA_DIR:-}" ]; then
    data_dir=$NVR_DATA_DIR
elif [ -n "${XDG_DATA_HOME:-}" ]; then
    data_dir=$XDG_DATA_HOME/nvr
elif [ -n "${HOME:-}" ] && { [ "$(id -u)" != 0 ] || [ -z "${SUDO_USER:-}" ]; }; then
    data_dir=$HOME/.local/share/nvr
elif [ "$(id -u)" = 0 ]; then
    data_dir=/usr/local/share/nvr
else
    echo "setup: HOME is not set; set it, or NVR_DATA_DIR" >&2
    exit 2
fi
missing=()

say() { echo "setup: $*"; }
lack() { missing+=("$*"); echo "setup: missing: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root, directly or by sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
can_be_root() { [ "$(id -u)" = 0 ] || { have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }; }

# --- Packages of the distribution -------------------------------------------------------------------

packages=(
    ca-certificates gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
    gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x libgstrtspserver-1.0-0
)
if ! $runtime; then
    packages+=(
        gcc libc6-dev make pkg-config
        libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstreamer-plugins-bad1.0-dev
        libgstrtspserver-1.0-dev
    )
fi
if $dev; then
    packages+=(mosquitto mosquitto-clients ffmpeg openssl procps faketime e2fsprogs)
    # OpenGL in software: the wall is drawn by it too.
    packages+=(gstreamer1.0-gl libgl1-mesa-dri libegl-mesa0)
fi

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

apt_install() {
    if $check; then
        lack "packages: $*"
        return
    fi
    local command="apt-get update && apt-get install --no-install-recommends $*"
    if ! can_be_root; then
        lack "packages; as root, run: $command"
        return
    fi
    say "installing: $*"
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q ||
        ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; then
        lack "packages, see the messages of apt above; the command was: $command"
    fi
}

if have apt-get && have dpkg-query; then
    wanted=()
    for package in "${packages[@]}"; do
        installed "$package" || wanted+=("$package")
    done
    if [ ${#wanted[@]} -gt 0 ]; then apt_install "${wanted[@]}"; fi
else
    say "this system has no apt; looking for what Debian calls: ${packages[*]}"
    tools=(gst-launch-1.0)
    if ! $runtime; then tools+=(gcc make pkg-config); fi
    for tool in "${tools[@]}"; do
        have "$tool" || lack "program $tool"
    done
    $runtime || for library in gstreamer-1.0 gstreamer-base-1.0 gstreamer-app-1.0 gstreamer-video-1.0 \
        gstreamer-rtsp-server-1.0 gstreamer-check-1.0; do
        pkg-config --exists "$library >= 1.22" 2>/dev/null || lack "library $library 1.22 or newer, with its headers"
    done
    for element in rtspsrc rtph264depay h264parse avdec_h264 x264enc uridecodebin3 jpegenc; do
        gst-inspect-1.0 --exists "$element" 2>/dev/null || lack "GStreamer element $element"
    done
    if $dev; then
        have mosquitto || [ -x /usr/sbin/mosquitto ] || lack "program mosquitto"
        for element in glvideomixerelement glupload gldownload; do
            gst-inspect-1.0 --exists "$element" 2>/dev/null || lack "GStreamer element $element"
        done
        for tool in mosquitto_passwd mosquitto_sub ffmpeg ffprobe openssl kill; do
            have "$tool" || lack "program $tool"
        done
    fi
fi

# --- Rust -------------------------------------------------------------------------------------------

if $runtime; then
    :
elif ! have cargo || ! have rustc; then
    lack "Rust $min_rust or newer; install it from https://rustup.rs, or on Debian 13: apt-get install rustup && rustup default stable"
else
    rust=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n' "$min_rust" "${rust%%-*}" | sort -V | head -n1)" != "$min_rust" ]; then
        lack "Rust $min_rust or newer, this is $rust; update with: rustup update stable"
    elif $dev; then
        for part in fmt clippy; do
            cargo "$part" --version >/dev/null 2>&1 ||
                lack "cargo $part; install it with: rustup component add rustfmt clippy"
        done
        # From source, once: minutes each on a small machine, nothing afterwards. Versions that are known to work.
        for tool in cargo-nextest@0.9.143 cargo-deny@0.20.2; do
            have "${tool%@*}" && continue
            if $check; then
                lack "${tool%@*}; install it with: cargo install --locked $tool"
            else
                say "building $tool, this takes some minutes"
                cargo install --locked --quiet "$tool" || lack "$tool; see the messages of cargo above"
            fi
        done
    fi
fi

# --- ONNX Runtime -----------------------------------------------------------------------------------

# Any of the names that nvrinfer looks for; ldconfig is not in a user's PATH on Debian.
system_onnxruntime() {
    local cache
    cache=$({ ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null) || true
    grep -qE 'libonnxruntime\.so(\.1|\.1\.21)?( |$)' <<<"$cache"
}

# The newest library package of the distribution, empty where it has none.
packaged_onnxruntime() {
    have apt-cache || return 0
    apt-cache --names-only search '^libonnxruntime[0-9.]*$' 2>/dev/null | cut -d' ' -f1 | sort -V | tail -n1
}

# The release that scripts/onnxruntime.txt names.
wheel_release() { sed -n 's/^onnxruntime==\([0-9.]*\).*/\1/p' scripts/onnxruntime.txt; }

# Whether the library in the data directory is of this script, and of another release than it takes now.
outdated_wheel() {
    [ -e "$data_dir/lib/onnxruntime-LICENSE.txt" ] &&
        [ "$(cat "$data_dir/lib/onnxruntime-release.txt" 2>/dev/null)" != "$(wheel_release)" ]
}

# Takes the library out of the Python wheel: nothing of it is installed, and the wheel must have the known hash. Says
# what is in the way, and fails, where it cannot be had.
wheel_onnxruntime() {
    local tag python=
    case $(uname -m) in
        x86_64) tag=manylinux_2_28_x86_64 ;;
        aarch64) tag=manylinux_2_28_aarch64 ;;
        *) say "no wheel of ONNX Runtime is known for $(uname -m)"; return 1 ;;
    esac
    for candidate in python3 /usr/bin/python3; do
        if have "$candidate" && "$candidate" -m pip --version >/dev/null 2>&1; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        if ! have apt-get; then say "pip for Python 3 is missing, which fetches ONNX Runtime"; return 1; fi
        apt_install python3 python3-pip
        python=/usr/bin/python3
        "$python" -m pip --version >/dev/null 2>&1 || return 1
    fi
    say "fetching ONNX Runtime into $data_dir/lib"
    mkdir -p "$data_dir/lib" || return 1
    # Not `local`: the trap runs after this function has gone.
    work=$(mktemp -d) || return 1
    trap 'rm -rf "$work"' EXIT
    # The wheel is only opened as an archive, so its Python version is of no matter: always the same one, one hash.
    if ! "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --platform "$tag" --implementation cp --python-version 3.11 --require-hashes \
        --requirement scripts/onnxruntime.txt --dest "$work" "$@"; then
        say "the download of ONNX Runtime failed, see the messages of pip above"
        return 1
    fi
    "$python" - "$work" "$data_dir/lib" <<'PYTHON' || return 1
import os, pathlib, re, shutil, sys, zipfile

work, lib = map(pathlib.Path, sys.argv[1:])
(wheel,) = work.glob("onnxruntime-*.whl")
with zipfile.ZipFile(wheel) as archive:
    (member,) = [n for n in archive.namelist() if re.fullmatch(r"onnxruntime/capi/libonnxruntime\.so\.[0-9.]+", n)]
    for source, name, mode in [
        (member, "libonnxruntime.so", 0o755),
        ("onnxruntime/LICENSE", "onnxruntime-LICENSE.txt", 0o644),
        ("onnxruntime/ThirdPartyNotices.txt", "onnxruntime-ThirdPartyNotices.txt", 0o644),
    ]:
        # Under another name first: whoever looks meanwhile sees the whole file or none.
        part = lib / (name + ".part")
        with archive.open(source) as a, open(part, "wb") as b:
            shutil.copyfileobj(a, b)
        part.chmod(mode)
        os.replace(part, lib / name)
PYTHON
    wheel_release >"$data_dir/lib/onnxruntime-release.txt"
}

if [ -n "${ORT_DYLIB_PATH:-}" ]; then
    [ -e "$ORT_DYLIB_PATH" ] || lack "ONNX Runtime: ORT_DYLIB_PATH names $ORT_DYLIB_PATH, which does not exist"
elif [ -e "$data_dir/lib/libonnxruntime.so" ]; then
    # What is there works: a machine without a network goes on with it.
    if ! $check && outdated_wheel; then
        wheel_onnxruntime --retries 0 --timeout 10 || say "going on with the ONNX Runtime in $data_dir/lib"
    fi
elif system_onnxruntime; then
    :
elif $check; then
    lack "ONNX Runtime; scripts/setup.sh fetches it into $data_dir/lib"
elif wheel_onnxruntime; then
    :
elif package=$(packaged_onnxruntime) && [ -n "$package" ]; then
    apt_install "$package"
else
    lack "ONNX Runtime, see above; put a library at $data_dir/lib/libonnxruntime.so, or name one with ORT_DYLIB_PATH"
fi

# --- Sources of the dependencies: building works offline afterwards ---------------------------------

# The image's build stage has these scripts before it has the sources.
if ! $runtime && ! $check && [ -e Cargo.toml ] && have cargo && [ ${#missing[@]} = 0 ]; then
    cargo fetch --locked --quiet || lack "sources of the dependencies; see the messages of cargo above"
fi

# ----------------------------------------------------------------------------------------------------

if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: ${#missing[@]} of what is needed is missing, see above" >&2
    exit 1
fi
say "everything is there"
