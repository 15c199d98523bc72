"""A file is as it was or as it should be, whatever happens while it is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.commands.options import whole_file
from edge_agent.commands.run import tidy
from edge_agent.whole import whole


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.json"
    path.write_bytes(b"old")
    return path


def test_the_new_content_stands_there_once_it_is_on_the_disk(file, monkeypatch):
    """The bytes are forced to the disk before the name, and the name afterwards."""
    forced, fsync = [], os.fsync

    def note(number):
        forced.append((str(Path(f"/proc/self/fd/{number}").readlink()), file.read_bytes()))
        fsync(number)

    monkeypatch.setattr(os, "fsync", note)
    with whole(file) as output:
        output.write(b"new")
    folder = str(file.parent)
    assert [(place.startswith(f"{folder}/.settings.json."), content) for place, content in forced[:1]] == [
        (True, b"old")
    ]
    assert forced[1:] == [(folder, b"new")]
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError("full"), ValueError("wrong"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_one_and_nothing_else(file, error):
    """Also Ctrl-C."""

    def fail():
        with whole(file) as output:
            output.write(b"half of the ne")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


def test_a_kill_leaves_the_old_one_and_the_next_start_tidies_up(file):
    """SIGKILL in the middle of writing."""
    code = (
        "import os, signal, sys; from pathlib import Path; from edge_agent.whole import whole\n"
        "with whole(Path(sys.argv[1])) as output:\n"
        "    output.write(b'half'); output.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, file], check=False).returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old"
    assert len(list(file.parent.iterdir())) == 2
    tidy(file.parent)
    assert list(file.parent.iterdir()) == [file]


def test_a_link_stays_a_link_and_a_device_a_device(file, tmp_path):
    """What people name with --output may be /dev/stdout, or a link to where the file really is."""
    link = tmp_path / "link"
    link.symlink_to(file)
    with whole_file(link) as output:
        output.write("new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(pipe) as output:
        output.write("seen")
    assert os.read(reader, 10) == b"seen"
    os.close(reader)
    assert pipe.is_fifo()
