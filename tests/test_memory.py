"""What a process gives back to the machine."""

import mmap
import re
from pathlib import Path

from edge_agent.memory import _untouched, be_thrifty, give_back, rss_bytes

SMAPS = """\
7f0000000000-7f0000001000 r-xp 00000000 08:01 1234       /usr/lib/libc.so.6
Rss:                 100 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex
7f0000001000-7f0000002000 r--p 00001000 08:01 1234       /usr/lib/libc.so.6
Rss:                 100 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
Swap:                  0 kB
7f0000002000-7f0000003000 r--p 00001000 08:01 1234       /usr/lib/a library.so
Rss:                 100 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
Swap:                  4 kB
7f0000003000-7f0000004000 rw-p 00001000 08:01 1234       /usr/lib/libc.so.6
Anonymous:             0 kB
7f0000004000-7f0000005000 r--p 00001000 08:01 99         /usr/lib/a library.so
Private_Dirty:         4 kB
Anonymous:             0 kB
7f0000005000-7f0000006000 r-xp 00000000 00:00 0          [vdso]
Anonymous:             0 kB
7f0000006000-7f0000007000 r--s 00000000 00:01 77         /memfd:mark (deleted)
Anonymous:             0 kB
"""


def test_only_what_nobody_has_written_is_let_go():
    """Relocated pages of a library exist nowhere else, also when they are swapped out.

    Those of one that was just installed may not be on the disk yet (dirty), and are the file's all the same.
    """
    assert _untouched(SMAPS) == [(0x7F0000000000, 0x7F0000001000), (0x7F0000004000, 0x7F0000005000)]


def test_a_process_lives_on_after_it():
    """Everything that was let go is there again when it is needed: this interpreter, and what it imports."""
    be_thrifty()
    before = rss_bytes()
    give_back()
    after = rss_bytes()
    assert after < before
    import decimal

    assert str(decimal.Decimal("0.1") + decimal.Decimal("0.2")) == "0.3"
    assert max(str(number) for number in range(1000)) == "999"


def test_a_file_that_was_just_installed_goes_back_and_returns_piece_by_piece(tmp_path):
    """It is not on the disk yet, and the kernel may hold it in pieces of megabytes: neither may cost memory."""
    path = tmp_path / "library.so"
    path.write_bytes(bytes(range(256)) * (4 << 12))

    def resident_kb():
        mapped = re.findall(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
        return sum(int(each) for each in mapped)

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as library:
        assert sum(library[:: mmap.PAGESIZE]) == 0
        assert resident_kb() == 4096
        give_back()
        assert resident_kb() == 0
        assert library[1 << 20] == 0
        assert 0 < resident_kb() <= 256
        assert sum(library[:: mmap.PAGESIZE]) == 0
