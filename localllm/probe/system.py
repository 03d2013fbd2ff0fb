"""The operating system around this process: release, kernel, C library, WSL, container, Rosetta.

Knows files, the environment and the platform module. It starts one child process, with a time
limit, where the C library is musl, which tells its version in no other way.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from localllm.hardware import Finding, System
from localllm.probe import sysctl
from localllm.probe.files import read_text


def probe_system(
    root: Path = Path("/"), environ: Mapping[str, str] | None = None
) -> tuple[System, tuple[Finding, ...]]:
    """The system below a root folder, for a process with that environment."""
    environ = os.environ if environ is None else environ
    os_name = platform.system()
    if os_name != "Linux":
        return _elsewhere(os_name), ()
    findings = []
    release = parse_os_release(_first_text(root, "etc/os-release", "usr/lib/os-release") or "")
    if release is None:
        message = "/etc/os-release could not be read: the distribution is unknown."
        findings.append(Finding("warn", "probe.os-release", message))
    kernel = read_text(root / "proc/sys/kernel/osrelease") or platform.release() or None
    system = System(
        os=os_name,
        release=release,
        kernel=kernel,
        libc=_libc(root),
        python=platform.python_version(),
        wsl=wsl_version(kernel),
        container=container_kind(root, environ),
    )
    return system, tuple(findings)


def _elsewhere(os_name: str) -> System:
    translated = False
    if os_name == "Darwin":
        release = f"macOS {platform.mac_ver()[0]}"
        # Apple, "About the Rosetta translation environment": 1 translated, 0 native, absent on
        # Intel Macs.
        translated = sysctl.read_integers(["sysctl.proc_translated"]) == {
            "sysctl.proc_translated": 1
        }
    else:
        release = f"{os_name} {platform.release()} {platform.version()}"
    return System(
        os=os_name,
        release=release,
        kernel=platform.release() or None,
        python=platform.python_version(),
        translated=translated,
    )


def _first_text(root: Path, *names: str) -> str | None:
    return next((text for name in names if (text := read_text(root / name))), None)


# /etc/os-release (os-release(5)):
#   PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
#   NAME="Debian GNU/Linux"
#   VERSION_ID="12"
def parse_os_release(text: str) -> str | None:
    """The distribution's readable name and version."""
    values = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            values[key] = value.strip("\"'")
    plain = " ".join(part for part in (values.get("NAME"), values.get("VERSION_ID")) if part)
    return values.get("PRETTY_NAME") or plain or None


def wsl_version(kernel: str | None) -> int | None:
    """1 or 2 in the Windows Subsystem for Linux, by its kernel's release.

    WSL 1: "4.4.0-19041-Microsoft"; WSL 2: "5.15.153.1-microsoft-standard-WSL2".
    """
    if not kernel or "microsoft" not in kernel.lower():
        return None
    # WSL 1 has no kernel of its own and always says 4.4 with a capital; WSL 2 began with 4.19.
    return 1 if re.match(r"4\.4\..*-Microsoft$", kernel) else 2


#: What a path of /proc/*/cgroup or a line of /run/systemd/container betrays.
_CGROUP_HINTS = (
    ("kubepods", "kubernetes"),
    ("libpod", "podman"),
    ("docker", "docker"),
    ("/lxc", "lxc"),
    ("containerd", "containerd"),
)


def container_kind(root: Path, environ: Mapping[str, str]) -> str | None:
    """The container around us, in this order, the more telling first.

    1. KUBERNETES_SERVICE_HOST, which every pod has. 2. APPTAINER_CONTAINER and
    SINGULARITY_CONTAINER. 3. /run/.containerenv (podman). 4. /.dockerenv. 5. `container=` in the
    environment of this process or of process 1 (systemd's convention: lxc, systemd-nspawn, oci),
    or /run/systemd/container, which says the same to those who may not read the latter. 6. Paths
    in /proc/self/cgroup and /proc/1/cgroup.
    """
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if environ.keys() & {"APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"}:
        return "apptainer"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    first = (read_text(root / "proc/1/environ") or "").split("\0")
    said = [variable[len("container=") :] for variable in first if variable[:10] == "container="]
    for kind in (environ.get("container"), *said, read_text(root / "run/systemd/container")):
        if kind and kind != "wsl":  # WSL's systemd calls itself a container
            return kind
    paths = "\n".join(read_text(root / f"proc/{who}/cgroup") or "" for who in ("self", "1"))
    return next((kind for hint, kind in _CGROUP_HINTS if hint in paths), None)


def _libc(root: Path) -> str | None:
    """The C library of this very Python: "glibc 2.36" or "musl 1.2.5"."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")  # glibc alone knows the name
    except (ValueError, OSError, AttributeError):
        version = None
    if version:
        return version
    loaders = sorted((root / "lib").glob("ld-musl-*.so.1"))
    return _musl(loaders[0]) if loaders else None


def _musl(loader: Path) -> str:
    import subprocess

    try:
        # Without an argument the loader prints what it is, on stderr, and leaves with 1.
        ran = subprocess.run([loader], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "musl"
    return parse_musl(ran.stderr)


# /lib/ld-musl-x86_64.so.1:
#   musl libc (x86_64)
#   Version 1.2.5
#   Dynamic Program Loader
def parse_musl(text: str) -> str:
    """Name and version, "musl 1.2.5", out of what musl's loader prints about itself."""
    match = re.search(r"^Version (\S+)", text, re.MULTILINE)
    return f"musl {match[1]}" if match else "musl"
