"""`localllm doctor`: probes the machine, asks the engine, and prints what is to be said."""

from __future__ import annotations

import concurrent.futures
import getpass
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm import __version__, diagnosis, paths
from localllm.cli import render
from localllm.diagnosis import Toolchain
from localllm.engine_report import EngineReport
from localllm.errors import DiskError
from localllm.hardware import Finding, Hardware
from localllm.units import format_bytes, format_rate

if TYPE_CHECKING:
    from rich.table import Table

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


def run(*, as_json: bool, report: bool) -> int:
    """Prints the findings; returns the exit status: 0 all well, 1 a warning, 9 a failure."""
    hardware, engine, findings = examine()
    document = {
        "schema_version": 1,
        "localllm": __version__,
        "hardware": hardware.to_json(),
        "engine": engine.to_json(),
        "findings": [vars(finding) for finding in findings],
    }
    if report:
        path = _write_report(document)
        render.say(f"the report is {path}; look it over before you attach it")
    if as_json:
        render.print_json(document)
    else:
        _print(hardware, engine, findings)
    return diagnosis.exit_code(findings)


def examine() -> tuple[Hardware, EngineReport, tuple[Finding, ...]]:
    """Machine, engine and findings; the engine answers in a child while the probe looks."""
    from localllm.engine import toolchain
    from localllm.engine.ask import ask_engine
    from localllm.probe import probe

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = pool.submit(ask_engine)
        surveyed = pool.submit(toolchain.survey)
        hardware, probed = probe(paths.models_dir())
        engine, machine = asked.result(), surveyed.result()
    builders = Toolchain(
        cxx=machine.compiler.cxx if machine.compiler else None,
        install_compiler=toolchain.how_to_install("compiler", machine),
    )
    return hardware, engine, diagnosis.diagnose(hardware, engine, builders, probed)


def _print(hardware: Hardware, engine: EngineReport, findings: tuple[Finding, ...]) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    out = render.console(sys.stdout)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    _machine_rows(table, hardware)
    _engine_rows(table, engine)
    out.print(table)
    out.print()
    for finding in findings:
        mark, colour = _MARKS[finding.level]
        out.print(
            Text.assemble((mark, colour), "  ", finding.message, ("  " + finding.code, "dim"))
        )
        if finding.fix:
            out.print(Padding(Text(finding.fix, style="bold"), (0, 0, 0, 6)))


def _machine_rows(table: Table, hardware: Hardware) -> None:
    system, cpu, memory, disk = hardware.system, hardware.cpu, hardware.memory, hardware.disk
    where = [system.release or system.os, system.libc, f"Python {system.python}"]
    if system.wsl:
        where.append(f"WSL {system.wsl}")
    if system.container:
        where.append(f"in {system.container}")
    table.add_row("system", _joined(where))
    cores = f"{cpu.n_physical or '?'} cores, {cpu.n_logical or '?'} threads"
    if cpu.n_performance:
        cores += f", {cpu.n_performance} performance cores"
    usable = f"{cpu.n_usable} usable" if cpu.n_usable != cpu.n_logical else None
    table.add_row("processor", _joined([cpu.model or cpu.architecture, cores, usable]))
    table.add_row("", ", ".join(cpu.features or ()) or "instruction sets unknown")
    total = f"{format_bytes(memory.total_bytes)}, {format_bytes(memory.free_bytes)} free"
    limit = f"limit {format_bytes(memory.limit_bytes)}" if memory.limit_bytes else None
    rate = None if memory.bandwidth is None else f"reads {format_rate(memory.bandwidth)}"
    table.add_row("memory", _joined([total, limit, rate]))
    for gpu in hardware.accelerators:
        size = f"{format_bytes(gpu.total_bytes)}, {format_bytes(gpu.free_bytes)} free"
        details = [
            gpu.name or gpu.vendor,
            "unified memory" if gpu.unified else size,
            format_rate(gpu.bandwidth) if gpu.bandwidth else None,
            f"driver {gpu.driver}" if gpu.driver else None,
            f"CUDA {gpu.runtime}" if gpu.runtime and gpu.vendor == "nvidia" else None,
        ]
        table.add_row(f"GPU {gpu.index}", _joined(details))
    if not hardware.accelerators:
        table.add_row("GPU", "none found")
    if disk is not None:
        free = f"{format_bytes(disk.free_bytes)} free"
        table.add_row("models", _joined([render.home_shortened(disk.path), free]))


def _engine_rows(table: Table, engine: EngineReport) -> None:
    if engine.library is None and engine.tools_folder is None:
        table.add_row("engine", "none")
        return
    built = f"built for {engine.backend}" if engine.backend else engine.error
    version = f"llama-cpp-python {engine.version}" if engine.version else None
    commit = engine.commit or engine.tools_commit
    table.add_row("engine", _joined([version, f"llama.cpp {commit}" if commit else None, built]))
    if engine.tools_folder:
        table.add_row("tools", render.home_shortened(engine.tools_folder))
    devices = [
        f"{device.name} ({device.description})" if device.description else device.name
        for device in engine.devices
    ]
    if devices:
        table.add_row("devices", ", ".join(devices))


def _joined(parts: list[str | None]) -> str:
    return " · ".join(part for part in parts if part)


def _write_report(document: dict[str, Any]) -> Path:
    """A Markdown file in the current folder, redacted, that overwrites nothing."""
    import json

    body = json.dumps(document, indent=2, ensure_ascii=False)
    variables = sorted(
        name
        for name in os.environ
        if name.startswith(("LOCALLLM_", "LLAMA_", "GGML_", "CUDA_", "HF_", "OMP_", "GOMP_"))
    )
    text = (
        f"# localllm {__version__} report\n\n"
        f"Variables that are set (values left out): {', '.join(variables) or 'none'}\n\n"
        f"```json\n{body}\n```\n"
    )
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no entry for this uid, as in many containers
        user = ""
    text = diagnosis.redact(text, str(Path.home()), user, platform.node())
    for number in range(1, 1000):
        path = Path(f"localllm-report{'' if number == 1 else f'-{number}'}.md")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            continue
        except OSError as exc:
            raise DiskError(
                f"cannot write {path.absolute()}: {exc.strerror}", "go to a folder of your own"
            ) from exc
        return path
    raise DiskError("this folder holds a thousand reports already")
