"""install.sh on machines made up of a PATH; the engine's build and the network are stood in for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: What the script may use of the system beside Python: POSIX and bash, nothing more.
SYSTEM = (
    "bash", "sh", "env", "cat", "uname", "id", "dirname", "basename", "rm", "mkdir", "grep", "tail",
    "head", "cut", "sed", "find", "sort", "cksum", "sleep",
)  # fmt: skip

#: The interpreter that the tests' own environment was made from.
BASE = getattr(sys, "_base_executable", sys.executable)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a bash script")

#: Records how it was called, in place of the real build.
BUILD = """
import pathlib, sys
with open(pathlib.Path(__file__).parents[2] / "calls", "a") as file:
    print("engine", *sys.argv[1:], sep="|", file=file)
"""

#: `uv venv` by hand, which is quick, and `uv pip install` by a script that says it is localllm.
UV = """#!{python}
import pathlib, sys
with open("calls", "a") as file:
    print("uv", *sys.argv[1:], sep="|", file=file)
if sys.argv[1] == "venv":
    folder = pathlib.Path(sys.argv[-1]) / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to("{base}")
    (folder.parent / "pyvenv.cfg").write_text("home = " + str(pathlib.Path("{base}").parent))
if sys.argv[1:3] == ["pip", "install"]:
    program = pathlib.Path(sys.argv[sys.argv.index("--python") + 1]).with_name("localllm")
    program.write_text("#!/bin/sh\\n")
    program.chmod(0o755)
"""


class Checkout:
    """A checkout in a folder with blanks and umlauts, and a PATH with nothing on it but SYSTEM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "Büro mit Raum" / "localllm"
        self.path = folder / "bin"
        self.path.mkdir()
        for name in SYSTEM:
            found = shutil.which(name)
            assert found, name
            (self.path / name).symlink_to(found)
        package = self.folder / "localllm" / "engine"
        package.mkdir(parents=True)
        shutil.copy(ROOT / "install.sh", self.folder)
        (self.folder / "pyproject.toml").write_text("[project]\n")
        for init in (package / "__init__.py", package.parent / "__init__.py"):
            init.touch()
        (package / "build.py").write_text(BUILD)

    def program(self, name: str, text: str) -> None:
        path = self.path / name
        path.write_text(text)
        path.chmod(0o755)

    def with_python(self) -> Checkout:
        self.program("python3", f'#!/bin/sh\nexec "{BASE}" "$@"\n')
        return self

    def with_uv(self) -> Checkout:
        self.program("uv", UV.format(python=sys.executable, base=BASE))
        return self

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        (self.folder / "calls").unlink(missing_ok=True)
        environ = {"PATH": str(self.path), "HOME": str(self.folder.parent), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            [str(self.folder / "install.sh"), *arguments],
            cwd=cwd or self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_it_is_shellcheck_clean() -> None:
    shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    if not Path(shellcheck).exists():
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, str(ROOT / "install.sh")], capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0


def test_help_is_on_stdout_and_changes_nothing(checkout: Checkout) -> None:
    done = checkout.run("-h")
    assert done.returncode == 0
    for option in ("--backend", "--dev", "--prebuilt", "--wheelhouse", "--python"):
        assert option in done.stdout
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--frobnicate"], 2, "no option --frobnicate"),
        (["--backend", "opencl"], 2, "no backend opencl"),
        (["--backend"], 2, "--backend needs a value"),
        (["--wheelhouse", "nowhere"], 3, "nowhere is not a folder"),
        (["--prebuilt", "--wheelhouse", "."], 2, "needs the network"),
        (["--python", "nosuch"], 3, "no program nosuch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(
    checkout: Checkout, arguments: list[str], code: int, words: str
) -> None:
    done = checkout.run(*arguments)
    assert done.returncode == code
    assert words in done.stderr.splitlines()[0]
    assert not (checkout.folder / ".venv").exists()


def test_no_python_is_one_sentence(checkout: Checkout) -> None:
    done = checkout.run()
    assert done.returncode == 9
    assert done.stderr.startswith(
        "localllm: localllm needs Python 3.10 or newer, and there is none"
    )
    assert "hint: " in done.stderr


def test_an_old_python_is_named_with_the_command_that_brings_a_newer(checkout: Checkout) -> None:
    checkout.program(
        "python3", '#!/bin/sh\ncase "$*" in *version_info*) exit 1;; esac\necho 3.8.10\n'
    )
    checkout.program("dnf", "#!/bin/sh\n")
    done = checkout.run()
    assert done.returncode == 9
    assert "needs Python 3.10 or newer, and the one here is 3.8.10" in done.stderr
    assert "dnf install python3.12" in done.stderr


def test_a_missing_venv_module_is_one_sentence_with_the_package(checkout: Checkout) -> None:
    checkout.program(
        "python3",
        f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec "{sys.executable}" "$@"\n',
    )
    checkout.program("apt-get", "#!/bin/sh\n")
    done = checkout.run()
    assert done.returncode == 9
    assert "has no venv module" in done.stderr
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_a_shim_that_fails_is_passed_over(checkout: Checkout) -> None:
    checkout.with_python().with_uv()
    (checkout.path / "python3").rename(checkout.path / "python3.12")
    checkout.program(
        "python3", "#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n"
    )
    assert checkout.run().returncode == 0


def test_a_first_run_makes_everything_and_a_second_changes_nothing(
    checkout: Checkout, tmp_path: Path
) -> None:
    checkout.with_python().with_uv()
    done = checkout.run(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "environment .venv (made with uv)" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("/.venv/bin/localllm chat demo")
    calls = checkout.calls()
    assert [call.split("|")[0] for call in calls if "--version" not in call] == [
        "uv",
        "engine",
        "uv",
    ]
    assert "engine|install|--backend|auto" in calls

    again = checkout.run()
    assert again.returncode == 0
    assert "nothing in the checkout has changed" in again.stderr
    assert again.stderr.splitlines()[-1] == "localllm: done. Try: .venv/bin/localllm chat demo"
    assert not any("venv" in call or "pip" in call for call in checkout.calls() if call[:2] == "uv")


def test_a_changed_checkout_is_installed_again(checkout: Checkout) -> None:
    checkout.with_python().with_uv().run()
    (checkout.folder / "localllm" / "new.py").write_text("x = 1\n")
    checkout.run()
    assert any(call.startswith("uv|pip|install") for call in checkout.calls())


def test_development_is_an_upgrade_that_a_plain_run_keeps(checkout: Checkout) -> None:
    checkout.with_python().with_uv().run()
    assert "done. Try" in checkout.run("--dev").stderr
    assert any(call.endswith("|-e|.[dev]") for call in checkout.calls())
    (checkout.folder / "localllm" / "new.py").write_text("x = 1\n")  # editable: it is in already
    checkout.run()
    assert not any(call.startswith("uv|pip") for call in checkout.calls())


def test_options_reach_the_build(checkout: Checkout, tmp_path: Path) -> None:
    house = tmp_path / "wheel house"
    house.mkdir()
    checkout.with_python().with_uv().run()
    checkout.run("--backend=cpu", "--rebuild", "--wheelhouse", "wheel house", cwd=tmp_path)
    expected = f"engine|install|--backend|cpu|--rebuild|--wheelhouse|{house}"
    assert expected in checkout.calls()
    checkout.run("--prebuilt")
    assert "engine|install|--backend|auto|--prebuilt" in checkout.calls()


def test_a_failed_build_ends_the_run_with_its_status(checkout: Checkout) -> None:
    checkout.with_python().with_uv()
    (checkout.folder / "localllm/engine/build.py").write_text("import sys\nsys.exit(8)\n")
    done = checkout.run()
    assert done.returncode == 8
    assert "done" not in done.stderr


def test_a_copied_checkout_gets_an_environment_of_its_own(checkout: Checkout) -> None:
    checkout.with_python().with_uv().run()
    copy = checkout.folder.with_name("copy")
    shutil.copytree(checkout.folder, copy, symlinks=True)
    checkout.folder = copy
    done = checkout.run()
    assert "was made in another folder: it is made again" in done.stderr
    assert any(call.startswith("uv|venv") for call in checkout.calls())


def test_a_broken_environment_is_made_again_and_a_foreign_folder_is_left(
    checkout: Checkout,
) -> None:
    checkout.with_python().with_uv().run()
    python = checkout.folder / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nonexistent/python")
    assert "has no Python that works any more" in checkout.run().stderr
    shutil.rmtree(checkout.folder / ".venv")
    (checkout.folder / ".venv").mkdir()
    done = checkout.run()
    assert done.returncode == 9
    assert "is there and is not a Python environment" in done.stderr
    assert os.listdir(checkout.folder / ".venv") == []


def test_another_python_than_the_environments_is_not_silently_ignored(checkout: Checkout) -> None:
    checkout.with_python().with_uv().run()
    checkout.program(
        "other", '#!/bin/sh\ncase "$*" in *version_info*) exit 0;; esac\necho 3.10.1\n'
    )
    done = checkout.run("--python", "other")
    assert done.returncode == 9
    assert "not 3.10.1" in done.stderr
    assert "rm -r " in done.stderr
