"""`localllm serve` without a terminal: in the background, or as a service of systemd."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from localllm import paths, running
from localllm.cli.processes import GRACE_SECONDS, Server, progress
from localllm.cli.screen import harmless
from localllm.engine.interpreter import module_argv
from localllm.errors import DiskError, LocalllmError
from localllm.running import Running

_POLL_SECONDS = 0.2
#: Of what the server printed before it ended, where it printed no error.
_N_LAST_LINES = 5
#: What decides where localllm finds its files. A service does not see a shell's variables; no
#: secrets, as a unit is there for everybody to read.
_VARIABLES = (
    "LOCALLLM_HOME", "LOCALLLM_ENGINE_DIR", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME",
)  # fmt: skip


def start_background(argv: Sequence[str], name_hint: str) -> Running:
    """Starts a server that goes on when we end, waits until it can answer, and says where.

    What it prints goes to serve.log beside its logs, of the last start only. Who ends us before it
    can answer (Ctrl-C, SIGTERM, a terminal that is closed) does not want it later.

    Args:
        argv: of `localllm serve`, without --background.
        name_hint: what to call it until it has its name.

    Raises:
        LocalllmError: it ended, with its own words and exit code; or no replica can answer.
        DiskError: its log cannot be written.
    """
    folder = paths.private_folder(running.logs_of(name_hint).parent)
    log = folder / f".starting-{os.getpid()}.log"
    try:
        with _signals_raised():
            child = _spawn([*module_argv("localllm"), "serve", *argv], log)
            try:
                record = _await_ready(child, log, name_hint)
                # Moved while it is written to; a log_dir of its own may be on another disk.
                _move(log, paths.private_folder(running.logs_of(record.name)) / "serve.log")
            except BaseException:
                child.terminate()
                raise
    finally:
        log.unlink(missing_ok=True)
    _tell(record)
    return record


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """What would end us at once leaves time to clear up, as Ctrl-C does."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    # One that is ignored (nohup) stays so.
    ours = [
        number
        for name in ("SIGTERM", "SIGHUP")
        if (number := getattr(signal, name, None)) is not None  # Windows has no SIGHUP
        and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _move(log: Path, to: Path) -> None:
    try:
        log.replace(to)
    except OSError as exc:
        raise DiskError(f"cannot write {to}: {exc.strerror or exc}") from exc


def _spawn(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    except OSError as exc:
        raise DiskError(f"cannot write {log}: {exc.strerror or exc}") from exc
    with os.fdopen(descriptor, "wb") as output:
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, creationflags=flags
            )
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # neither the terminal's Ctrl-C nor its end is for it
        )


def _await_ready(child: subprocess.Popen[bytes], log: Path, name: str) -> Running:
    with progress(f"{name} is starting") as show:
        while True:
            status = child.poll()
            if status is not None:
                raise _ended(log, name, status)
            record = next((r for r in running.find_all() if r.pid == child.pid), None)
            if record is not None:
                server = Server.ask(record)
                if server.state == "ready":
                    return record
                if server.status is not None and server.state == "failed":
                    why = "; ".join(filter(None, (r.last_error for r in server.status.replicas)))
                    raise LocalllmError(
                        f"{record.name} cannot answer: {harmless(why) or 'no replica came up'}",
                        f"localllm logs {record.name} --error",
                    )
            lines = _lines(log)
            show(f"{name} is starting: {lines[-1]}" if lines else f"{name} is starting")
            time.sleep(_POLL_SECONDS)


def _ended(log: Path, name: str, status: int) -> LocalllmError:
    """The error that the server told, as ours."""
    printed = "\n".join(_lines(log))
    told = re.findall(r"^error: (.*)(?:\nhint: (.*))?", printed, re.MULTILINE)
    if told:
        message, hint = told[-1]
        error = LocalllmError(message, hint or None)
    else:
        last = " ".join(_lines(log)[-_N_LAST_LINES:]) or "it said nothing"
        error = LocalllmError(f"{name} ended with {status} before it could answer: {last}")
    # 0: it was told to stop while it was loading.
    error.exit_code = status if status > 0 else 1 if status == 0 else 128 - status
    error.detail = printed
    return error


def _lines(log: Path) -> list[str]:
    text = harmless(log.read_text(encoding="utf-8", errors="replace"))
    return [line for line in text.splitlines() if line.strip()]


def _tell(record: Running) -> None:
    sys.stdout.write(
        f"{record.name} on {record.url}\n"
        f"  localllm top {record.name}\n"
        f"  localllm logs {record.name} -f\n"
        f"  localllm stop {record.name}\n"
    )


def systemd_unit(
    argv: Sequence[str],
    *,
    user: bool = True,
    drain_seconds: float = 30.0,
    environment: Mapping[str, str] | None = None,
) -> str:
    """A unit file that runs `localllm serve` with these arguments.

    Args:
        argv: of `localllm serve`, without --print-systemd. Relative paths go on to mean what they
            mean here.
        user: for a person's own systemd; else for the machine's, where the service then runs as
            the person who printed it.
        drain_seconds: see Settings.drain_seconds.
        environment: of which the variables that say where files are go into the unit; None is
            this process's.
    """
    environment = os.environ if environment is None else environment
    program, *rest = module_argv("localllm")
    command = [_quoted(program), *map(_argument, (*rest, "serve", *argv))]
    variables = [
        f"Environment={_quoted(f'{name}={environment[name]}')}"
        for name in _VARIABLES
        if environment.get(name)
    ]
    stop = "infinity" if drain_seconds == 0 else f"{drain_seconds + 2 * GRACE_SECONDS:.0f}"
    lines = [
        *(_USER_COMMENT if user else _SYSTEM_COMMENT),
        "",
        "[Unit]",
        "Description=A language model behind an OpenAI-style API (localllm serve)",
        *(() if user else ("Wants=network-online.target", "After=network-online.target")),
        "# After five failures in five minutes it stays down.",
        "StartLimitIntervalSec=300",
        "StartLimitBurst=5",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        *(() if user else (f"User={getpass.getuser()}",)),
        f"WorkingDirectory={_specifiers(os.getcwd())}",
        *variables,
        f"ExecStart={' '.join(command)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "# A model of many gigabytes on a slow disk takes long to load.",
        "TimeoutStartSec=infinity",
        "# The requests that run may end, and then the children.",
        f"TimeoutStopSec={stop}",
        "# SIGTERM is for the gateway alone, which drains; what is left at the end is killed.",
        "KillMode=mixed",
        "Restart=on-failure",
        "RestartSec=5",
        "# Wrong arguments, nothing there, no access, damaged, too large: the same again.",
        "RestartPreventExitStatus=2 3 4 6 7",
        "# A llama-server that the kernel ended for memory is started again, smaller, by the",
        "# gateway; systemd would stop them all.",
        "OOMPolicy=continue",
        "LimitNOFILE=65536",
        "UMask=0077",
        *(() if user else ("ProtectSystem=full", "ProtectControlGroups=yes")),
        *_HARDENING_COMMENT,
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return "\n".join(lines)


_USER_COMMENT = (
    "# For one person; nobody needs to be root. Put this into",
    "# ~/.config/systemd/user/localllm.service, then:",
    "#   systemctl --user daemon-reload",
    "#   systemctl --user enable --now localllm",
    "#   loginctl enable-linger        # to run from boot on, without a login",
    "#   journalctl --user -u localllm -f",
)
_SYSTEM_COMMENT = (
    "# For the machine. Put this into /etc/systemd/system/localllm.service, then:",
    "#   sudo systemctl daemon-reload",
    "#   sudo systemctl enable --now localllm",
    "#   journalctl -u localllm -f",
    "# Unless LOCALLLM_HOME is set for both, a login's localllm ps, stop, logs and top look for it",
    "# elsewhere; this finds it: env -u XDG_RUNTIME_DIR localllm ps",
)
_HARDENING_COMMENT = (
    "# Left out, since GPUs need them: PrivateDevices, MemoryDenyWriteExecute (CUDA compiles",
    "# kernels as it runs), NoNewPrivileges and all that implies it (nvidia-modprobe, which makes",
    "# the GPU's device files, is setuid). PrivateTmp would hide the control socket.",
)
_PLAIN = re.compile(r"[\w@+=:,./-]+", re.ASCII)


def _argument(word: str) -> str:
    """A word of a command line: also without variables, which the program's path never has."""
    return _quoted(word.replace("$", "$$"))


def _quoted(word: str) -> str:
    """A word as systemd reads it (systemd.syntax(7), "Quoting"; specifiers: systemd.unit(5))."""
    if _PLAIN.fullmatch(word):
        return word
    escaped = _specifiers(word).replace("\\", "\\\\").replace('"', '\\"')
    escaped = re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", escaped)
    return f'"{escaped}"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")
