"""Nothing leads out of a root: with the kernel's resolver and with ours, races included."""

# ruff: noqa: PTH104, PTH123 - these tests speak to the file system as directly as what they test

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.file_problems import FileProblem
from runtimes.files import beneath
from runtimes.files.beneath import Resolver, Root, ask_kernel, best_resolver, reopen, walk
from runtimes.files.errors import FileError
from tests.testing.processes import descriptors

RESOLVERS = {"kernel": ask_kernel, "walk": walk}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A root with everything that tries to lead out, and something outside."""
    root = tmp_path / "root"
    (root / "home" / "deep").mkdir(parents=True)
    (root / "home" / "file").write_text("inside")
    (root / "etc").mkdir()
    (root / "etc" / "passwd").write_text("inside too")
    (tmp_path / "secret").write_text("outside")
    (root / "home" / "to-file").symlink_to("file")
    (root / "home" / "to-etc").symlink_to("/etc")
    (root / "home" / "up").symlink_to("../../../..")
    (root / "home" / "out").symlink_to(tmp_path / "secret")
    (root / "home" / "relative-out").symlink_to("../../secret")
    (root / "home" / "loop").symlink_to("loop")
    (root / "home" / "dangling").symlink_to("to-be-made")
    (root / "home" / "slash").symlink_to("file/")
    (root / "home" / "deep" / "back").symlink_to("../file")
    return root


@pytest.fixture(params=RESOLVERS)
def resolver(request: pytest.FixtureRequest) -> Resolver:
    chosen = RESOLVERS[request.param]
    if chosen is ask_kernel and best_resolver() is not ask_kernel:
        pytest.skip("this kernel has no openat2")
    return chosen


@pytest.fixture
def root(top: Path, resolver: Resolver) -> Iterator[Root]:
    opened = Root(str(top), resolver=resolver)
    before = descriptors()
    yield opened
    assert descriptors() == before
    opened.close()
    opened.close()


def content(root: Root, path: str) -> bytes:
    fd = root.resolve(path)
    try:
        with open(reopen(fd, os.O_RDONLY), "rb") as file:
            return file.read()
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "path",
    [
        "/home/file",
        "home/file",
        "//home/./file",
        "/home/../home/deep/../file",
        "/../../../home/file",
        "/home/to-file",
        "/home/deep/back",
        "/home/deep/../to-file",
        "/home/up/home/file",
        "/home/up/../../home/file",
    ],
)
def test_what_is_inside_is_found(root: Root, path: str) -> None:
    assert content(root, path) == b"inside"


def test_absolute_links_begin_at_the_root(root: Root) -> None:
    assert content(root, "/home/to-etc/passwd") == b"inside too"


@pytest.mark.parametrize("path", ["", "/", ".", "..", "/..", "/home/..", "/home/up"])
def test_the_root_itself(root: Root, top: Path, path: str) -> None:
    fd = root.resolve(path)
    assert os.fstat(fd).st_ino == top.stat().st_ino
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/home/out", errno.ENOENT),
        ("/home/relative-out", errno.ENOENT),
        ("/home/up/secret", errno.ENOENT),
        ("/../secret", errno.ENOENT),
        ("/home/nothing", errno.ENOENT),
        ("/home/nothing/..", errno.ENOENT),
        ("/home/dangling", errno.ENOENT),
        ("/home/file/", errno.ENOTDIR),
        ("/home/file/.", errno.ENOTDIR),
        ("/home/file/..", errno.ENOTDIR),
        ("/home/file/x", errno.ENOTDIR),
        ("/home/slash", errno.ENOTDIR),
        ("/home/loop", errno.ELOOP),
        ("/home/loop/x", errno.ELOOP),
        ("/" + "x" * 300, errno.ENAMETOOLONG),
    ],
)
def test_what_is_not_inside_is_not_found(root: Root, path: str, number: int) -> None:
    with pytest.raises(OSError) as caught:
        root.resolve(path)
    assert caught.value.errno == number


def test_a_last_link_can_be_taken_for_itself(root: Root) -> None:
    for path in ("/home/to-file", "/home/out", "/home/loop"):
        fd = root.resolve(path, follow=False)
        assert stat.S_ISLNK(os.fstat(fd).st_mode)
        os.close(fd)


def test_a_chain_of_links_has_an_end(root: Root, top: Path) -> None:
    (top / "l0").symlink_to("home/file")
    for n in range(1, 42):
        (top / f"l{n}").symlink_to(f"l{n - 1}")
    assert content(root, "/l39") == b"inside"
    with pytest.raises(OSError) as caught:
        root.resolve("/l41")
    assert caught.value.errno == errno.ELOOP


def test_a_pipe_is_looked_at_without_waiting(root: Root, top: Path) -> None:
    os.mkfifo(top / "pipe")
    fd = root.resolve("/pipe")
    assert stat.S_ISFIFO(os.fstat(fd).st_mode)
    os.close(fd)


def test_magic_links_are_not_followed_by_the_kernel(top: Path) -> None:
    if best_resolver() is not ask_kernel:
        pytest.skip("this kernel has no openat2")
    everything = Root("/", resolver=ask_kernel)
    with open(top / "home" / "file") as file:
        with pytest.raises(OSError) as caught:
            everything.resolve(f"/proc/self/fd/{file.fileno()}")
        assert caught.value.errno == errno.ELOOP
    everything.close()


def test_magic_links_are_only_paths_to_our_walk(tmp_path: Path, top: Path) -> None:
    """What /proc says a descriptor is, is looked up beneath the root like any other link."""
    (top / "fd").symlink_to("/proc/self/fd")
    inner = Root(str(top), resolver=walk)
    with pytest.raises(FileNotFoundError):
        inner.resolve("/fd/0")
    inner.close()


def test_the_parent_of_a_path(root: Root, top: Path) -> None:
    with root.parent("/home/to-etc/new") as place:
        assert place.name == "new"
        assert place.stat() is None
        assert os.fstat(place.directory).st_ino == (top / "etc").stat().st_ino
    with root.parent("/home/out") as place:
        status = place.stat()
        assert status is not None
        assert stat.S_ISLNK(status.st_mode)
    with pytest.raises(NotADirectoryError):
        root.parent("/home/file/x")
    with pytest.raises(FileNotFoundError):
        root.parent("/nowhere/x")
    for path, problem in (("/", "forbidden"), (".", "forbidden"), ("/home/..", "invalid")):
        with pytest.raises(FileError) as caught:
            root.parent(path)
        assert caught.value.problem is FileProblem(problem)


def test_where_a_path_leads(root: Root, top: Path) -> None:
    with root.target("/home/to-file") as place:
        assert place.name == "file"
    with root.target("/home/dangling") as place:
        assert place.name == "to-be-made"
        assert place.stat() is None
    (top / "home" / "odd").symlink_to("to-etc/passwd")
    with root.target("/home/odd") as place:
        assert os.fstat(place.directory).st_ino == (top / "etc").stat().st_ino
    with pytest.raises(OSError) as caught:
        root.target("/home/loop")
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError):
        root.target("/home/out")  # its directories do not exist in here


def test_making_directories(root: Root, top: Path) -> None:
    root.make_directories("/home/a/b/c")
    root.make_directories("/home/a/b/c")
    root.make_directories("/home/to-etc/x")
    root.make_directories("/")
    assert (top / "home" / "a" / "b" / "c").is_dir()
    assert (top / "etc" / "x").is_dir()
    with pytest.raises(NotADirectoryError):
        root.make_directories("/home/file/x")
    assert sorted(p.name for p in top.parent.iterdir()) == ["root", "secret"]


def test_when_the_kernel_cannot_be_sure_we_walk(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
        asked.append(path)
        raise BlockingIOError(errno.EAGAIN, "again")

    monkeypatch.setattr(beneath, "openat2", openat2)
    opened = Root(str(top), resolver=ask_kernel)
    assert content(opened, "/home/to-file") == b"inside"
    assert len(asked) > 1
    opened.close()


def test_without_openat2_we_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
        raise OSError(errno.ENOSYS, "no such system call")

    monkeypatch.setattr(beneath, "openat2", openat2)
    assert best_resolver() is walk


NAMES = st.sampled_from(
    ["home", "file", "deep", "up", "out", "to-etc", "etc", "back", "loop", "..", ".", "", "secret"]
)


@given(parts=st.lists(NAMES, max_size=12), absolute=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_both_resolvers_agree(top: Path, parts: list[str], absolute: bool) -> None:
    """Ours against the kernel's, on paths made of everything that is there."""
    if best_resolver() is not ask_kernel:
        pytest.skip("this kernel has no openat2")
    path = ("/" if absolute else "") + "/".join(parts)
    results: list[object] = []
    for resolver in RESOLVERS.values():
        opened = Root(str(top), resolver=resolver)
        try:
            fd = opened.resolve(path)
            results.append(os.fstat(fd).st_ino)
            os.close(fd)
        except OSError as error:
            results.append(error.errno)
        finally:
            opened.close()
    assert results[0] == results[1], path


@pytest.mark.parametrize("path", ["/box/in/file", "/box/../box/in/file", "/home/../box/in/./file"])
def test_a_directory_that_turns_into_a_link_leads_nowhere(root: Root, top: Path, path: str) -> None:
    """While a thread swaps a directory with a link to the outside, over and over."""
    outside = top.parent / "outside"
    (outside / "in").mkdir(parents=True)
    (outside / "in" / "file").write_text("outside")
    (top / "real" / "in").mkdir(parents=True)
    (top / "real" / "in" / "file").write_text("inside")
    (top / "bait").symlink_to("../outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(top / "real", top / "box")
            os.rename(top / "box", top / "real")
            os.rename(top / "bait", top / "box")
            os.rename(top / "box", top / "bait")

    thread = threading.Thread(target=swap)
    thread.start()
    found = 0
    try:
        for _ in range(2000):
            try:
                assert content(root, path) == b"inside"
                found += 1
            except FileNotFoundError:
                pass
            with root.parent("/real") as place:
                assert os.fstat(place.directory).st_ino == top.stat().st_ino
    finally:
        stop.set()
        thread.join()
    assert found, "the race was never lost by the other side: the test shows nothing"
