"""A file is complete or not there; a device, a pipe and standard output are written through; nothing is obeyed."""

import csv
import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lopsided.data.storage import (
    is_temporary,
    remove_leftovers,
    replace_atomically,
    write_atomically,
    write_csv,
    write_tensors,
    write_text,
)
from tests.campaigns.children import in_child

WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "new"),
    "tensors": lambda path: write_tensors(path, {"a": torch.ones(1000)}),
    "path": lambda path: replace_atomically(path, lambda temporary: temporary.write_text("new") and None),
}

as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes devices")


def refused(write: Callable[[], object]) -> OSError:
    with pytest.raises(OSError) as caught:  # noqa: PT011, which one is looked at by those who call
        write()
    return caught.value


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_pipe_is_written_through(tmp_path: Path, writer: Callable[[Path], None]) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    thread.start()
    writer(pipe)
    thread.join(timeout=10)
    assert len(read[0]) >= 3
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@as_root
@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_device_is_written_through(tmp_path: Path, writer: Callable[[Path], None]) -> None:
    for name, minor in {"null": 3, "full": 7}.items():
        os.mknod(tmp_path / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    writer(tmp_path / "null")
    error = refused(lambda: writer(tmp_path / "full"))
    assert (error.errno, error.filename) == (errno.ENOSPC, str(tmp_path / "full"))
    assert all(stat.S_ISCHR(path.stat().st_mode) for path in tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"null", "full"}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path, writer: Callable[[Path], None]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch(mode=0o600)
    (tmp_path / "link").symlink_to("there/file")
    writer(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there/file").stat().st_size >= 3
    assert stat.S_IMODE((tmp_path / "there/file").stat().st_mode) == 0o600


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_file_too_large_for_the_limit_leaves_the_old_one(tmp_path: Path, writer: Callable[[Path], None]) -> None:
    import resource  # without which this file is skipped, before it comes to this

    (tmp_path / "file").write_text("old")

    def write() -> int:
        try:
            writer(tmp_path / "file")
        except OSError as error:
            print(error.errno == errno.EFBIG, error.filename == str(tmp_path / "file"))
        return 0

    ended = in_child(write, tmp_path, [(resource.RLIMIT_FSIZE, 2)])
    assert (ended.out, ended.err) == ("True True\n", "")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    error = refused(lambda: write_text(tmp_path, "new"))
    assert (error.errno, error.filename) == (errno.EISDIR, str(tmp_path))


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    write_text(tmp_path / ("é" * 127), "new")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_kill_left_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from lopsided.data.storage import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), lambda file: os.kill(os.getpid(), signal.SIGKILL))"
    )
    for name in ("file", "other.csv", "[ab"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=False)
    assert len(list(filter(is_temporary, tmp_path.iterdir()))) == 3
    write_text(tmp_path / "[ab", "new")
    assert len(list(filter(is_temporary, tmp_path.iterdir()))) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["[ab"]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    def write(file: Any) -> None:
        write_text(tmp_path / "file", "of another")
        remove_leftovers(tmp_path)
        file.write(b"mine")

    write_atomically(tmp_path / "file", write)
    assert (tmp_path / "file").read_text() == "mine"


def test_no_file_holds_what_a_terminal_or_a_spreadsheet_obeys(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "a\x1b[31m\x9b\u202e\u2028\ud800\0b\n")
    assert (tmp_path / "text").read_text() == "a[31m?b\n"
    cells = ["=1+1", "\uff1d1+1", " @a", "\t-1", "plain", "a=b"]
    write_csv(tmp_path / "table.csv", ["name", "value"], [(each, -1.5) for each in cells])
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [line["name"][0] for line in csv.DictReader(file)] == ["'", "'", "'", "'", "p", "a"]


def test_tensors_come_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", {"a": torch.arange(3)}, {"some": "text"})
    assert load_file(tmp_path / "file")["a"].tolist() == [0, 1, 2]
