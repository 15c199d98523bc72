#!/usr/bin/env bash
# Install edge-agent on Debian 12 or 13 or Raspberry Pi OS (64 bit), or bring an installation up to date.
#
#   sudo systemd/install.sh [OPTIONS]
#
#   --wheel FILE      install this wheel instead of the source tree that the script stands in
#   --with LIST       optional parts too, as pyproject.toml names them: demo
#   --python PROGRAM  the interpreter to build on (python3)
#   --csi             for cameras on the Pi's ribbon cable: use the distribution's picamera2
#   --root FOLDER     into the file system of an image; nothing is started
#   --uninstall       remove the program and the service; configuration and data stay
#
# It may be repeated: the configuration is never touched, and the program is replaced only once the new one is complete;
# the one before stays beside it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
source_tree=$(dirname "$here")
root=
wheel=
with=
python=python3
csi=no
action=install
unfinished=() # what goes when we end, however we end
trap 'rm -rf "${unfinished[@]}"' EXIT

say() { echo "edge-agent: $*"; }
fail() {
    echo "edge-agent: $*" >&2
    exit 3
}
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

while [ $# -gt 0 ]; do
    case $1 in
        --wheel | --with | --python | --root)
            [ $# -ge 2 ] || { usage >&2 && exit 2; }
            declare "${1#--}=$2"
            shift
            ;;
        --csi) csi=yes ;;
        --uninstall) action=uninstall ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
[ -z "$root" ] || root=$(mkdir -p "$root" && cd "$root" && pwd)
[ "$root" != / ] || root=

opt=$root/opt/edge-agent
etc=$root/etc/edge-agent
units=$root/etc/systemd/system

is_root() { [ "$(id -u)" -eq 0 ]; }
# Whether the machine that we install on is the one that runs, with systemd in charge.
is_live() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

check_machine() {
    [ "$(uname -s)" = Linux ] || fail "this is $(uname -s); edge-agent runs on Linux"
    # A 64-bit kernel may carry a 32-bit system: what counts is the system.
    [ "$(getconf LONG_BIT)" = 64 ] || fail "this system is 32-bit; the model runtimes need a 64-bit one (Raspberry Pi OS, 64-bit)"
    case $(uname -m) in
        aarch64 | x86_64) ;;
        *) fail "no model runtimes exist for $(uname -m); aarch64 or x86_64 is needed" ;;
    esac
    [ -n "$root" ] || is_root || fail "not root; run it with sudo"
    command -v "$python" >/dev/null || fail "no $python here; apt install python3 python3-venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" -V) is too old; 3.11 is needed (Debian 12, Raspberry Pi OS Bookworm)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make environments; apt install python3-venv"
    [ -z "$wheel" ] || [ -f "$wheel" ] || fail "no such wheel: $wheel"
}

# The environment is closed to the distribution's packages, which apt would change under our feet, with two exceptions:
# picamera2 exists only there, and for Python 3.13 so does lgpio on ARM.
open_to_distribution() {
    if [ "$csi" = yes ]; then
        [ -n "$root" ] || "$python" -c 'import picamera2' 2>/dev/null || fail "no picamera2 here; apt install python3-picamera2"
        echo --system-site-packages
    elif [ "$(uname -m)" = aarch64 ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then
        [ -n "$root" ] || "$python" -c 'import lgpio' 2>/dev/null ||
            say "no lgpio here, so outputs will not work; apt install python3-lgpio and run this again" >&2
        echo --system-site-packages
    fi
}

install_program() {
    local target before what options
    target=$opt/venv-$(date -u +%Y%m%dT%H%M%SZ)-$$
    before=$(readlink "$opt/venv" 2>/dev/null || true)
    options=$(open_to_distribution)
    unfinished=("$(mktemp -d)" "$target")

    what=${wheel:-${unfinished[0]}}
    if [ -z "$wheel" ]; then # pip leaves its traces in the tree that it builds
        tar -C "$source_tree" --exclude=.git --exclude='.venv*' --exclude=build --exclude=__pycache__ -c . | tar -C "$what" -x
    fi
    say "making $target; on a Pi this takes some minutes"
    mkdir -p "$opt"
    # shellcheck disable=SC2086 # no option or one
    "$python" -m venv $options "$target"
    "$target/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --constraint "$source_tree/requirements.lock" "$what${with:+[$with]}"
    if [ -n "$root" ]; then # the image will see these files without our folder in front
        grep -rlIZ --exclude-dir=site-packages "$root/" "$target" | xargs -0 --no-run-if-empty sed -i "s#$root/#/#g"
    else
        "$target/bin/edge-agent" version >/dev/null || fail "the new program does not start; nothing was changed"
    fi
    unfinished=("${unfinished[0]}")

    ln -s "$(basename "$target")" "$opt/venv.new"
    mv -T "$opt/venv.new" "$opt/venv"
    for old in "$opt"/venv-*; do
        case $(basename "$old") in "$(basename "$target")" | "$before") ;; *) rm -rf "$old" ;; esac
    done
    mkdir -p "$root/usr/local/bin"
    ln -sfn /opt/edge-agent/venv/bin/edge-agent "$root/usr/local/bin/edge-agent"
}

install_system_files() {
    install -D -m 644 "$here/edge-agent.service" "$units/edge-agent.service"
    install -D -m 644 "$here/sysusers.d/edge-agent.conf" "$root/etc/sysusers.d/edge-agent.conf"
    install -D -m 644 "$here/modules-load.d/edge-agent.conf" "$root/etc/modules-load.d/edge-agent.conf"
    install -D -m 644 "$here/udev/70-edge-agent.rules" "$root/etc/udev/rules.d/70-edge-agent.rules"
    if [ "$csi" = yes ]; then
        install -D -m 644 "$here/drop-ins/csi-camera.conf" "$units/edge-agent.service.d/csi-camera.conf"
    fi
    if [ ! -e "$root/usr/lib/systemd/systemd-timesyncd" ]; then
        install -D -m 644 "$here/drop-ins/other-clock.conf" "$units/edge-agent.service.d/other-clock.conf"
    else
        rm -f "$units/edge-agent.service.d/other-clock.conf"
    fi
    command -v systemd-sysusers >/dev/null || fail "no systemd-sysusers here; is this a systemd machine?"
    if is_root; then systemd-sysusers --root="${root:-/}" edge-agent.conf; fi
}

install_config() {
    local group
    group=$(awk -F: '$1 == "edge-agent" {print $3}' "$root/etc/group" 2>/dev/null || true)
    mkdir -p "$etc"
    if is_root && [ -n "$group" ]; then chgrp "$group" "$etc"; fi
    # The daemon reads it and never writes it, nobody else sees it; what is made in it belongs to the daemon's group.
    chmod 2750 "$etc"
    if [ -e "$source_tree/config.yaml.example" ]; then
        install -m 644 "$source_tree/config.yaml.example" "$etc/config.yaml.example"
    fi
    [ -e "$etc/config.yaml" ] || say "next: edge-agent init --output $etc/config.yaml"
}

start() {
    if ! is_live; then
        systemctl --root="${root:-/}" enable --quiet edge-agent.service
        return
    fi
    xargs -n 1 modprobe --quiet < <(grep -v '^#' "$here/modules-load.d/edge-agent.conf") || true
    udevadm control --reload
    udevadm trigger --subsystem-match=gpio --subsystem-match=i2c-dev
    systemctl daemon-reload
    systemctl enable --quiet edge-agent.service
    systemctl try-restart edge-agent.service
    systemctl is-active --quiet edge-agent.service || say "start it with: systemctl start edge-agent"
}

uninstall() {
    [ -n "$root" ] || is_root || fail "not root; run it with sudo"
    if is_live; then
        systemctl disable --quiet --now edge-agent.service 2>/dev/null || true
    elif [ -e "$units/edge-agent.service" ]; then
        systemctl --root="${root:-/}" disable --quiet edge-agent.service
    fi
    rm -rf "$opt" "$units/edge-agent.service" "$units/edge-agent.service.d/csi-camera.conf" \
        "$units/edge-agent.service.d/other-clock.conf" "$root/etc/sysusers.d/edge-agent.conf" \
        "$root/etc/modules-load.d/edge-agent.conf" "$root/etc/udev/rules.d/70-edge-agent.rules"
    if [ -L "$root/usr/local/bin/edge-agent" ]; then rm "$root/usr/local/bin/edge-agent"; fi
    if is_live; then systemctl daemon-reload; fi
    say "removed; the configuration in $etc, the data in $root/var/lib/edge-agent and the user edge-agent stay"
}

if [ "$action" = uninstall ]; then
    uninstall
else
    check_machine
    install_program
    install_system_files
    install_config
    start
    say "installed $(readlink "$opt/venv")"
fi
