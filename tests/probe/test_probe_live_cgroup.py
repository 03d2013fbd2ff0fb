"""A real control group with limits, a child inside it, and what the child's probe reports.

Needs the right to make control groups below this process's own (root on a machine or in a
privileged container); elsewhere the captured trees of test_probe_cgroups.py must do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control_groups import limited_groups

LIMIT = 384 << 20
CHILD = """
import json, os, sys
from pathlib import Path
for folder in sys.argv[2:]:
    Path(folder, "cgroup.procs").write_text(str(os.getpid()))
from localllm.probe import probe
hardware, findings = probe(Path(sys.argv[1]), measure_bandwidth=False)
print(json.dumps([hardware.to_json(), [f.code for f in findings]]))
"""


@pytest.fixture
def limited() -> Iterator[list[Path]]:
    with limited_groups(LIMIT, 1.5) as groups:
        yield groups


def test_a_process_in_a_limited_group_reports_the_limits(limited, tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path), *map(str, limited)]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stderr
    hardware, findings = json.loads(ran.stdout)
    memory, cpu = hardware["memory"], hardware["cpu"]
    assert memory["limit_bytes"] == LIMIT
    assert memory["limit_source"].startswith(str(limited[0]))
    assert 0 <= memory["limit_used_bytes"] < LIMIT
    assert memory["free_bytes"] == LIMIT - memory["limit_used_bytes"]
    assert memory["total_bytes"] > LIMIT
    assert cpu["quota"] == 1.5
    assert cpu["n_usable"] == 1
    assert "probe.cgroup" not in findings


def test_page_cache_charged_to_a_limited_group_does_not_count_as_used(limited, tmp_path):
    # The child reads a file of its own, nearly as large as the limit, before it probes.
    file = tmp_path / "weights"
    script = CHILD.replace(
        "from localllm.probe import probe",
        "from localllm.probe import probe\n"
        f"with open({str(file)!r}, 'wb') as f:\n"
        "    for _ in range(256): f.write(bytes(1 << 20))\n"
        "    f.flush(); os.fsync(f.fileno())",
    )

    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *map(str, limited)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    file.unlink(missing_ok=True)

    assert ran.returncode == 0, ran.stderr
    memory = json.loads(ran.stdout)[0]["memory"]
    assert memory["limit_used_bytes"] < 128 << 20
