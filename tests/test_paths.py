"""Where things live, and that what is private stays private."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from localllm import paths
from localllm.errors import DiskError
from tests.unprivileged import unprivileged

if sys.platform == "win32":
    pytest.skip("modes and sockets are POSIX's", allow_module_level=True)

FOLDERS: dict[str, Callable[[], Path]] = {
    "config": paths.config_dir,
    "cache": paths.cache_dir,
    "data": paths.data_dir,
    "state": paths.state_dir,
    "run": paths.runtime_dir,
}
#: What localllm.engine.server makes under the runtime folder, at its longest.
SOCKET = "engine-4194304-0123abcd/llama.sock"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALLLM_HOME")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


@pytest.mark.parametrize("name", FOLDERS)
def test_localllm_home_moves_every_folder(name: str, home: Path) -> None:
    assert FOLDERS[name]() == home / name


def test_models_are_data(home: Path) -> None:
    assert paths.models_dir() == home / "data" / "models"


@pytest.mark.usefixtures("without_home")
@pytest.mark.skipif(sys.platform != "linux", reason="XDG variables are Linux's")
@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("config", "XDG_CONFIG_HOME"),
        ("cache", "XDG_CACHE_HOME"),
        ("data", "XDG_DATA_HOME"),
        ("state", "XDG_STATE_HOME"),
    ],
)
def test_without_localllm_home_the_platforms_own_folders_are_used(
    name: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    assert FOLDERS[name]() == tmp_path / "localllm"


def test_an_empty_localllm_home_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALLLM_HOME", "")
    assert paths.cache_dir().name == "localllm"


def test_a_tilde_in_localllm_home_is_the_persons_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALLLM_HOME", "~/llm")
    assert paths.data_dir() == tmp_path / "llm" / "data"


def test_a_tilde_that_nobody_has_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALLLM_HOME", "~nobody-of-this-name/llm")
    assert paths.data_dir() == Path("~nobody-of-this-name/llm/data")


def test_the_names_of_folders_are_found_without_making_them(home: Path) -> None:
    for folder in FOLDERS.values():
        folder()
    assert list(home.iterdir()) == []


@pytest.mark.usefixtures("without_home")
def test_a_login_session_has_its_own_runtime_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="ll-") as session:
        monkeypatch.setenv("XDG_RUNTIME_DIR", session)
        assert paths.runtime_dir() == Path(session) / "localllm"


@pytest.mark.usefixtures("without_home")
def test_a_runtime_folder_that_is_not_there_gives_way_to_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/t")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    assert paths.runtime_dir() == Path(f"/t/localllm-{os.getuid()}")


@pytest.mark.usefixtures("without_home")
def test_a_runtime_folder_of_somebody_else_gives_way_to_the_temporary_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(prefix="ll-") as session:
        Path(session).chmod(0o555)
        monkeypatch.setattr(tempfile, "tempdir", "/t")
        monkeypatch.setenv("XDG_RUNTIME_DIR", session)
        with unprivileged():
            uid, folder = os.getuid(), paths.runtime_dir()
    assert folder == Path(f"/t/localllm-{uid}")


@pytest.mark.parametrize(
    "home",
    [
        pytest.param("/" + "deep/" * 30, id="many folders"),
        pytest.param("/" + "x" * 200, id="a long name"),
        pytest.param("/" + "模型" * 20, id="characters of three bytes"),
    ],
)
@pytest.mark.parametrize(
    "temporary",
    [
        pytest.param("/tmp", id="in /tmp"),
        pytest.param("/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T", id="in macOS's TMPDIR"),
        pytest.param("/scratch/" + "j" * 80, id="in a deep TMPDIR"),
    ],
)
def test_a_deep_home_still_has_room_for_a_socket(
    home: str, temporary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    monkeypatch.setenv("LOCALLLM_HOME", home)
    folder = paths.runtime_dir()
    assert len(os.fsencode(folder / SOCKET)) <= paths.SOCKET_PATH_LIMIT
    assert folder.is_absolute()


def test_a_socket_may_be_as_long_as_the_strictest_system_allows() -> None:
    # sun_path of macOS: 104 bytes, of which one is the terminating NUL
    assert paths.SOCKET_PATH_LIMIT == 103


@pytest.mark.parametrize("room", range(-3, 4))
def test_the_home_itself_is_used_as_long_as_a_socket_fits(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = paths.SOCKET_PATH_LIMIT - len(f"/run/{SOCKET}") - room
    home = "/" + "h" * (length - 1)
    monkeypatch.setenv("LOCALLLM_HOME", home)
    assert (paths.runtime_dir() == Path(home) / "run") == (room >= 0)


def test_two_deep_homes_have_two_runtime_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = set()
    for name in ("one", "two"):
        monkeypatch.setenv("LOCALLLM_HOME", "/" + "deep/" * 30 + name)
        folders |= {paths.runtime_dir(), paths.runtime_dir()}
    assert len(folders) == 2


def test_the_shipped_profiles_are_there() -> None:
    assert (paths.shipped_profiles_dir() / "policy.yaml").is_file()


@pytest.fixture(params=[0o022, 0o000, 0o077], ids=["umask 022", "umask 000", "umask 077"])
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_private_folder_and_its_missing_parents_are_open_to_the_owner_alone(
    tmp_path: Path,
) -> None:
    made = paths.private_folder(tmp_path / "a" / "b" / "c")
    assert made == tmp_path / "a" / "b" / "c"
    assert [mode(p) for p in (made, made.parent, made.parent.parent)] == [0o700] * 3


def test_parents_that_were_there_keep_their_modes(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    paths.private_folder(tmp_path / "a")
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize("before", [0o777, 0o755, 0o750, 0o701], ids=oct)
def test_an_own_folder_that_others_may_enter_is_closed(tmp_path: Path, before: int) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    folder.chmod(before)
    paths.private_folder(folder)
    assert mode(folder) == 0o700


def test_a_folder_that_is_closed_already_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    paths.private_folder(folder)
    assert mode(folder) == 0o500


def test_making_a_private_folder_twice_keeps_what_is_in_it(tmp_path: Path) -> None:
    folder = paths.private_folder(tmp_path / "kept")
    (folder / "note").write_text("here")
    assert (paths.private_folder(folder) / "note").read_text() == "here"


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o777)
    if os.getuid() == 0:
        os.chown(folder, 12345, 12345)
    else:
        monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(DiskError, match="theirs belongs to another user") as caught:
        paths.private_folder(folder)
    assert caught.value.hint is not None
    assert mode(folder) != 0o700 or os.getuid() != 0


def test_a_file_in_the_way_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DiskError, match="cannot make the folder") as caught:
            paths.private_folder(path)
        assert "LOCALLLM_HOME" in (caught.value.hint or "")


def test_a_folder_that_may_not_be_made_is_a_disk_error(home: Path) -> None:
    home.chmod(0o555)
    with unprivileged(), pytest.raises(DiskError, match="Permission denied"):
        paths.private_folder(home / "new")
    home.chmod(0o755)
