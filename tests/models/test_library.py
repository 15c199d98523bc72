"""What is installed: whole or not there, newer or refused, and always on record."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edge_agent.clock import ManualClock
from edge_agent.errors import BundleError, EdgeAgentError, ModelError
from models import archive, bundle, keys
from models.card import CARD
from models.library import KEEP, Library, release
from tests.models.building import STRANGER, TRUSTED, VENDOR, bundle_files, bundle_of, trusting

HERE = Path(__file__)


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path, ManualClock())


def install(library, *versions):
    for version in versions:
        library.install(bundle_of(version), lambda _: None, who="engineer", why="a test")


def audit(library):
    return [json.loads(line) for line in (library._state_dir / "audit" / "models.jsonl").read_text().splitlines()]


def test_what_is_installed_is_used(library):
    """The bundle comes back verified, and from memory like any other."""
    install(library, 1)

    assert library.names() == ["pixel"]
    assert library.in_use("pixel").previous is None
    assert library.load("pixel", TRUSTED).sha256 == bundle_of(1).sha256
    assert library.load("pixel", TRUSTED, previous=True) is None
    assert library.load("other", TRUSTED) is None


def test_a_newer_version_replaces_and_the_old_one_stays(library):
    """The previous release is what decides when the new one cannot."""
    install(library, 1, 2)

    assert library.load("pixel", TRUSTED).card.version == 2
    assert library.load("pixel", TRUSTED, previous=True).card.version == 1


def test_the_last_few_are_kept(library):
    """Older releases go; the one in use and the one before never do."""
    install(library, *range(1, 8))

    assert library.releases("pixel") == [release(bundle_of(version)) for version in (7, 6, 5)]
    assert KEEP == 3


def test_rollback_goes_back_on_purpose(library):
    """The release that is left does not become the fallback: it was left for a reason."""
    install(library, 1, 2, 3)

    library.rollback("pixel", who="engineer", why="false alarms")

    assert library.load("pixel", TRUSTED).card.version == 2
    assert library.load("pixel", TRUSTED, previous=True).card.version == 1
    library.rollback("pixel", who="engineer", why="still")
    with pytest.raises(BundleError, match="no previous release"):
        library.rollback("pixel", who="engineer", why="even more")


def test_an_older_version_never_comes_in_by_itself(library):
    """Not even after a rollback: the highest version that was in use is remembered."""
    install(library, 2, 4)
    library.rollback("pixel", who="engineer", why="x")

    with pytest.raises(BundleError, match=r"older than version 4.*rollback"):
        install(library, 3)
    assert audit(library)[-1]["what"] == "install refused"
    install(library, 4)
    assert library.load("pixel", TRUSTED).card.version == 4


def test_the_same_version_with_other_content_is_refused(library):
    """A version names one content."""
    install(library, 1)

    with pytest.raises(BundleError, match="a change needs a new version"):
        library.install(bundle_of(1, description="changed"), lambda _: None, who="x", why="y")


def test_the_same_bundle_again_changes_nothing_but_the_reason(library):
    """Installing twice is harmless: the previous release stays the previous one."""
    install(library, 1, 2, 2)

    assert library.load("pixel", TRUSTED, previous=True).card.version == 1


def test_nothing_is_placed_that_was_not_proven(library, tmp_path):
    """A bundle that fails its trial leaves no trace but the record."""

    def prove(_):
        raise ModelError("it crashes")

    with pytest.raises(ModelError, match="it crashes"):
        library.install(bundle_of(), prove, who="engineer", why="an update")

    assert library.names() == []
    assert not (tmp_path / "bundles" / "pixel").exists()
    assert (audit(library)[0]["why"], audit(library)[0]["who"]) == ("it crashes", "engineer")


def test_nothing_unsigned_is_installed(library):
    """Somebody must answer for it, if only this machine's own key."""
    unsigned = bundle.verify(bundle_files(key=STRANGER), TRUSTED, trust_unsigned=True)

    with pytest.raises(BundleError, match="not signed"):
        library.install(unsigned, lambda _: None, who="engineer", why="x")


def test_every_change_has_one_record_of_why(library):
    """Who, what, why, which key and which content, one line each."""
    install(library, 1, 2)
    library.rollback("pixel", who="operator", why="false alarms")

    lines = audit(library)

    assert [line["what"] for line in lines] == ["install", "install", "rollback"]
    assert (
        lines[1].items() >= {"who": "engineer", "why": "a test", "version": 2, "before": release(bundle_of(1))}.items()
    )
    assert lines[2].items() >= {"who": "operator", "why": "false alarms", "current": release(bundle_of(1))}.items()
    assert lines[0]["at"].startswith("2026-11-")


def test_a_record_after_a_torn_line_is_readable(library, tmp_path):
    """A line that the power cut off does not swallow the next."""
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "models.jsonl").write_text('{"at": "2026')
    install(library, 1)

    lines = (tmp_path / "audit" / "models.jsonl").read_text().splitlines()

    assert (len(lines), json.loads(lines[1])["what"]) == (2, "install")


def test_a_release_that_was_changed_on_the_disk_is_refused(library):
    """A bundle is verified each time it is loaded."""
    install(library, 1, 2)
    (library.path("pixel", release(bundle_of(2))) / "pixel.onnx").write_bytes(b"changed")

    with pytest.raises(BundleError, match="changed after"):
        library.load("pixel", TRUSTED)
    assert library.load("pixel", TRUSTED, previous=True).card.version == 1
    install(library, 2)  # installing again mends it
    assert library.load("pixel", TRUSTED).card.version == 2


def test_a_release_cannot_pose_as_another(library):
    """A well-signed bundle in the wrong folder is not that release."""
    install(library, 1, 2)
    new, old = (library.path("pixel", release(bundle_of(version))) for version in (2, 1))
    archive.discard(new)
    old.rename(new)

    with pytest.raises(BundleError, match="holds another bundle"):
        library.load("pixel", TRUSTED)


def test_a_signer_who_is_no_longer_trusted_decides_nothing(library):
    """Taking a key away works at the next load."""
    install(library, 1)

    with pytest.raises(BundleError, match="unknown key"):
        library.load("pixel", trusting(STRANGER))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"current": "../../etc"}', b"\xff" * 100])
def test_a_damaged_record_is_mended_by_installing(library, damage, tmp_path):
    """It is said, and the highest version on the disk still counts."""
    install(library, 2)
    (tmp_path / "bundles" / "pixel" / "in-use.json").write_bytes(damage)

    with pytest.raises(BundleError, match=r"in-use.json.*install pixel again"):
        library.in_use("pixel")
    with pytest.raises(BundleError, match="older"):
        install(library, 1)
    install(library, 2)
    assert library.load("pixel", TRUSTED).card.version == 2


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".", "a b"])
def test_a_name_leads_nowhere_else(library, name):
    """Names are plain words."""
    with pytest.raises(BundleError, match="no name"):
        library.in_use(name)


def test_a_disk_that_refuses_is_told_apart_from_a_bad_bundle(library, tmp_path):
    """No ModelError: nothing is wrong with the bundle."""
    (tmp_path / "bundles").write_text("a file where a folder belongs")

    with pytest.raises(EdgeAgentError, match="cannot change") as failed:
        install(library, 1)
    assert not isinstance(failed.value, ModelError)


def test_what_comes_with_the_product_is_compared_with_and_gone_back_to(library):
    """The first other release of its name stands beside it, as it would beside any other."""
    ours = bundle.shipped("thermal-modules")
    trusted = keys.trusted()
    new = resigned(ours, version=ours.card.version + 1)

    tried = library.offer(new, lambda _: None, who="engineer", why="trained again")

    assert (tried.current, tried.candidate) == (release(ours), release(new))
    assert library.load("thermal-modules", trusted).sha256 == ours.sha256
    assert library.settle("thermal-modules", release(new), good=True, why="it agrees").previous == release(ours)
    assert library.rollback("thermal-modules", who="engineer", why="x").current == release(ours)
    assert [line["what"] for line in audit(library)] == ["adopt", "offer", "promote", "rollback"]
    assert library.next_version("thermal-modules") == new.card.version + 1


def test_what_comes_with_the_product_is_no_version_to_go_under(library):
    """Another bundle of its version, or an older one, is refused like any other; itself is welcome."""
    ours = bundle.shipped("pitting")

    with pytest.raises(BundleError, match="a change needs a new version"):
        library.offer(resigned(ours, version=ours.card.version), lambda _: None, who="engineer", why="x")
    assert library.in_use("pitting") is None
    assert library.next_version("pitting") == ours.card.version + 1
    assert library.next_version("pixel") == 1
    assert library.offer(ours, lambda _: None, who="engineer", why="x").current == release(ours)


def resigned(found, **changes):
    """The same bundle with another card, signed by the vendor."""
    says = {**yaml.safe_load(found.files[CARD]), "made": "again", **changes}
    models = {name: data for name, data in found.files.items() if name.endswith((".onnx", ".tflite", ".txt"))}
    return bundle.verify(bundle.complete(bundle.draft(says, models), found.golden, VENDOR), TRUSTED)


def test_a_change_that_the_disk_refuses_did_not_happen(library, tmp_path, monkeypatch):
    """It was put on record before; that it failed is too."""
    install(library, 1)

    def full(path, _):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(archive, "replace", full)
    with pytest.raises(EdgeAgentError, match="No space left"):
        install(library, 2)

    assert library.in_use("pixel").current == release(bundle_of(1))
    assert [line["what"] for line in audit(library)] == ["install", "install", "install failed"]


# --- SIGKILL at every step

STEPS = ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir", "chown")


class Torn:
    """A file of which each write is two steps: what is killed between them leaves half of it."""

    def __init__(self, file, tick):
        self._file = file
        self._tick = tick

    def __enter__(self):
        return self

    def __exit__(self, *why):
        return self._file.__exit__(*why)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        self._tick()
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._tick()
        return self._file.write(data[len(data) // 2 :])


def die_at(step, change, folder):
    """In a process of its own: make the change, and be killed instead of the given step that changes the disk."""
    import signal

    left = [step]

    def tick():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def instead(real):
        def call(*args, **kwargs):
            tick()
            return real(*args, **kwargs)

        return call

    fdopen = os.fdopen
    os.fdopen = lambda *args, **kwargs: Torn(fdopen(*args, **kwargs), tick)
    for name in STEPS:
        setattr(os, name, instead(getattr(os, name)))
    change(Library(folder, ManualClock(), keep=1))


def candidate(library):
    library.offer(bundle_of(3), lambda _: None, who="engineer", why="better")


def settled(library, *, good):
    library.settle("pixel", release(bundle_of(3)), good=good, why="so it was seen")


def back(library):
    library.rollback("pixel", who="engineer", why="calibrate line --undo")


# What is done, what was done before it, (current, previous, candidate) before and after it, and the record of it.
CHANGES = {
    "install": (lambda library: install(library, 3), None, (2, 1, 0), (3, 2, 0), "install"),
    "offer": (candidate, None, (2, 1, 0), (2, 1, 3), "offer"),
    "promote": (lambda library: settled(library, good=True), candidate, (2, 1, 3), (3, 2, 0), "promote"),
    "reject": (lambda library: settled(library, good=False), candidate, (2, 1, 3), (2, 1, 0), "reject"),
    "undo": (back, None, (2, 1, 0), (1, 0, 0), "rollback"),
}


def versions(found):
    return tuple(int((each or "0").split("-")[0]) for each in (found.current, found.previous, found.candidate))


@pytest.mark.parametrize("what", list(CHANGES))
def test_sigkill_at_any_step_leaves_the_old_or_the_new(tmp_path, what):
    """Whatever the moment: somebody whole decides, what changed is on record with its reason, and it can be redone."""
    change, prepare, old, new, record = CHANGES[what]
    first = Library(tmp_path / "before", ManualClock(), keep=1)
    install(first, 1, 2)
    if prepare:
        prepare(first)
    assert versions(first.in_use("pixel")) == old
    seen = []
    for step in range(1, 300):
        folder = tmp_path / str(step)
        shutil.copytree(tmp_path / "before", folder)
        status = killed(step, change, folder)
        library = Library(folder, ManualClock(), keep=1)
        now = versions(library.in_use("pixel"))
        assert now in {old, new}, f"killed at step {step}"
        assert library.load("pixel", TRUSTED).card.version == now[0]
        if now[1]:
            assert library.load("pixel", TRUSTED, previous=True).card.version == now[1]
        if now == new:
            explained(folder, record)
        else:
            change(library)
            assert versions(library.in_use("pixel")) == new
            explained(folder, record)
        install(library, 4)
        assert library.load("pixel", TRUSTED).card.version == 4
        assert not [path for path in (folder / "bundles" / "pixel").iterdir() if path.name.startswith(".")]
        seen.append(now)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
    else:
        pytest.fail("it never finished")

    assert set(seen) == {old, new}
    assert seen == sorted(seen, key=lambda each: each == new), "there is one moment at which it changes"
    assert step > 10, "the fault was not where the disk changes"


def killed(step, change, folder):
    """How the process ended that made the change until that step."""
    if (pid := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            die_at(step, change, folder)
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1]


def explained(folder, record):
    """The last whole line of the audit is the change, with its reason; a torn one before it hides nothing."""
    lines = (folder / "audit" / "models.jsonl").read_bytes().splitlines()
    last = json.loads(lines[-1])
    assert last["what"] == record
    assert last["why"]


def test_two_at_once_wait_for_each_other(tmp_path):
    """Several processes that install leave one of the versions in use, whole."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from tests.models.test_library import Library, ManualClock, install\n"
        "from edge_agent.errors import BundleError\n"
        "library = Library(Path(sys.argv[2]), ManualClock())\n"
        "for version in range(1, 9):\n"
        "    try: install(library, version)\n"
        "    except BundleError as error: assert 'older' in str(error)\n"
    )
    root = str(HERE.parent.parent.parent)
    running = [subprocess.Popen([sys.executable, "-c", code, root, str(tmp_path)]) for _ in range(2)]

    assert [each.wait(60) for each in running] == [0, 0]
    assert Library(tmp_path, ManualClock()).load("pixel", TRUSTED).card.version == 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_installs_belongs_to_the_daemon(tmp_path):
    """The state folder's owner can read and change it all."""
    os.chown(tmp_path, 12345, 12345)
    install(Library(tmp_path, ManualClock()), 1, 2)
    keys.device_key(tmp_path)

    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob("*")} == {(12345, 12345)}
