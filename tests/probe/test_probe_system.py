"""The operating system, container and disk around a process."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

from localllm.probe.disk import nearest_existing, parse_mount_type, probe_disk
from localllm.probe.system import (
    container_kind,
    parse_musl,
    parse_os_release,
    probe_system,
    wsl_version,
)

DEBIAN = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
ID=debian
HOME_URL="https://www.debian.org/"
"""
ALPINE = 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.3\n'


@pytest.mark.parametrize(
    ("text", "release"),
    [
        pytest.param(DEBIAN, "Debian GNU/Linux 12 (bookworm)", id="pretty-name"),
        pytest.param(ALPINE, "Alpine Linux 3.20.3", id="name-and-version"),
        pytest.param("PRETTY_NAME='Arch Linux'\n", "Arch Linux", id="single-quotes"),
        pytest.param("# nothing\n", None, id="nothing"),
    ],
)
def test_the_distribution_has_a_readable_name(text, release):
    assert parse_os_release(text) == release


@pytest.mark.parametrize(
    ("kernel", "wsl"),
    [
        ("5.15.153.1-microsoft-standard-WSL2", 2),
        ("4.19.104-microsoft-standard", 2),
        ("4.4.0-19041-Microsoft", 1),
        ("6.1.0-18-amd64", None),
        (None, None),
    ],
)
def test_wsl_is_known_by_its_kernel(kernel, wsl):
    assert wsl_version(kernel) == wsl


POD = "11:memory:/kubepods.slice/kubepods-pod6f1c.slice/cri-containerd-9d2e.scope\n"


@pytest.mark.parametrize(
    ("files", "environ", "kind"),
    [
        pytest.param({}, {}, None, id="none"),
        pytest.param({".dockerenv": ""}, {}, "docker", id="docker"),
        pytest.param({"run/.containerenv": ""}, {"container": "podman"}, "podman", id="podman"),
        pytest.param(
            {".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes", id="pod"
        ),
        pytest.param({}, {"APPTAINER_CONTAINER": "/x.sif"}, "apptainer", id="apptainer"),
        pytest.param(
            {"proc/1/environ": "PATH=/bin\0container=lxc\0"}, {}, "lxc", id="lxc-by-process-1"
        ),
        pytest.param(
            {"run/systemd/container": "systemd-nspawn\n"}, {}, "systemd-nspawn", id="nspawn"
        ),
        pytest.param({"run/systemd/container": "wsl\n"}, {}, None, id="wsl-is-no-container"),
        pytest.param({"proc/self/cgroup": POD}, {}, "kubernetes", id="pod-by-its-group"),
        pytest.param(
            {"proc/1/cgroup": "4:cpu:/docker/0c14c8\n"}, {}, "docker", id="docker-by-its-group"
        ),
    ],
)
def test_the_container_around_us_is_known(machine, files, environ, kind):
    assert container_kind(machine(files=files), environ) == kind


@pytest.mark.parametrize(
    ("text", "libc"),
    [
        ("musl libc (x86_64)\nVersion 1.2.5\nDynamic Program Loader\nUsage: ...\n", "musl 1.2.5"),
        ("", "musl"),
    ],
)
def test_musl_tells_its_version(text, libc):
    assert parse_musl(text) == libc


@pytest.mark.skipif(platform.system() != "Linux", reason="reads Linux's files")
def test_a_system_without_a_release_file_is_a_finding(machine):
    root = machine(files={"proc/sys/kernel/osrelease": "6.6.1-generic\n"})

    system, findings = probe_system(root, {})

    assert (system.release, system.kernel, system.wsl) == (None, "6.6.1-generic", None)
    assert [f.code for f in findings] == ["probe.os-release"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this Python is not glibc's")
def test_the_c_library_of_this_python_is_named():
    assert probe_system()[0].libc == " ".join(platform.libc_ver())


MOUNTS = r"""27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
61 27 0:45 / /home rw,nosuid - nfs4 server:/home rw,vers=4.2
62 61 8:1 / /home/ann/my\040models rw - xfs /dev/sda1 rw
63 27 0:50 / /data rw - ext4 /dev/sdb1 rw
64 27 0:51 / /data rw - btrfs /dev/sdb2 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/home/ann", "nfs4"),
        ("/homework", "ext4"),
        ("/home/ann/my models/x.gguf", "xfs"),
        ("/data", "btrfs"),
    ],
)
def test_a_path_is_on_the_deepest_and_latest_mount(path, kind):
    assert parse_mount_type(MOUNTS, path) == kind


def test_a_folder_that_does_not_exist_yet_has_the_disk_of_the_nearest_one_that_does(tmp_path):
    wanted = tmp_path / "not" / "yet"

    disk, findings = probe_disk(wanted)

    assert nearest_existing(wanted) == tmp_path
    assert disk.path == str(wanted)
    assert disk.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert 0 < (disk.free_bytes or 0) <= (disk.total_bytes or 0)
    assert findings == ()


def test_a_disk_that_does_not_answer_is_a_finding_and_unknown(monkeypatch, tmp_path):
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", fail)

    disk, findings = probe_disk(tmp_path)

    assert (disk.total_bytes, disk.free_bytes) == (None, None)
    assert [f.code for f in findings] == ["probe.disk"]
    assert "Input/output error" in findings[0].message


def test_this_python_is_named():
    assert probe_system()[0].python == ".".join(map(str, sys.version_info[:3]))
