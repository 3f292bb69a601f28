"""What a runtime with streams of files must do: the sentences of docs/spec/trunk-1.md § 6, as tests.

A back-end's test module subclasses the class and gives it a `runtime` fixture, as for
`tests.contracts.runtime_contract`.  The sandbox's root must be empty but for a home, and its own.
"""

from __future__ import annotations

import hashlib

import pytest
import trio
import trio.testing

from relay.endpoint import Channel, ExitStatus
from runtimes.base import Runtime
from tests.contracts.runtime_scenarios import ContractBase
from tests.testing.file_operations import do, file_request, finish

UPLOAD = "an-upload-of-the-contract"
BIG = bytes(range(256)) * 8192  # 2 MiB


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FilesContract(ContractBase):
    """Reading, writing, directories, uploads."""

    async def test_what_is_written_can_be_read(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            written = await do(
                sandbox, "write", "a/b.bin", BIG, parents=True, mode=0o640, modified=10**18
            )
            assert written.told[0] == {"offset": 0}
            assert written.last["created"]
            assert written.last["sha256"] == sha256(BIG)
            assert (written.last["mode"], written.last["modified"]) == (0o640, 10**18)
            read = await do(sandbox, "read", "a/b.bin", digest=True)
            assert read.content == BIG
            assert read.told[0]["size"] == len(BIG)
            assert read.told[0]["etag"] == written.last["etag"] == read.last["etag"]
            assert read.last["sha256"] == sha256(BIG)
            assert read.last["sent"] == len(BIG)
            assert sandbox.statistics().endpoints_open == 0

    async def test_a_range(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "f", b"0123456789")
            assert (await do(sandbox, "read", "f", offset=3, length=4)).content == b"3456"
            assert (await do(sandbox, "read", "f", offset=8)).content == b"89"
            assert (await do(sandbox, "read", "f", offset=8, length=100)).content == b"89"
            assert (await do(sandbox, "read", "f", offset=10)).content == b""
            assert (await do(sandbox, "read", "f", offset=11)).error == "range"

    async def test_relative_paths_begin_at_home(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            home = (await do(sandbox, "stat", ".")).last
            await do(sandbox, "write", "here", b"x")
            assert (await do(sandbox, "stat", ".")).last["etag"] != home["etag"]
            assert (await do(sandbox, "stat", "./../.././../here")).error == "not_found"

    async def test_nothing_is_above_the_root(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            root = (await do(sandbox, "stat", "/")).last["etag"]
            above = (await do(sandbox, "stat", "/../../..")).last
            assert above["etag"] == root

    async def test_replacing_keeps_the_mode_and_is_seen_whole(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "f", b"old", mode=0o600)
            endpoint = await sandbox.start(file_request("write", "f"))
            await endpoint.send(b"new and longer")
            assert (await do(sandbox, "read", "f")).content == b"old"
            done = await finish(endpoint, b"")
            assert not done.last["created"]
            assert done.last["mode"] == 0o600
            assert (await do(sandbox, "read", "f")).content == b"new and longer"
            assert list((await do(sandbox, "list", ".")).lines) == ["f"]

    async def test_an_open_reader_keeps_the_old_file(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "f", BIG)
            endpoint = await sandbox.start(file_request("read", "f"))
            first = bytes(await endpoint.receive(Channel.OUTPUT, 10))
            await do(sandbox, "write", "f", b"other")
            assert first + (await finish(endpoint)).content == BIG

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"size": 4}, "mismatch"),
            ({"size": 2}, "too_large"),
            ({"sha256": "0" * 64}, "mismatch"),
            ({"checksum": "sha1:" + "0" * 40}, "mismatch"),
            ({"length": 4}, "mismatch"),
            ({"length": 2}, "too_large"),
            ({"offset": 1}, "range"),
            ({"overwrite": False}, "exists"),
            ({"if_match": "another"}, "changed"),
        ],
    )
    async def test_a_write_that_fails_changes_nothing(
        self, runtime: Runtime, options: dict[str, object], error: str
    ) -> None:
        async with self.open(runtime) as sandbox:
            before = (await do(sandbox, "write", "f", b"old")).last["etag"]
            assert (await do(sandbox, "write", "f", b"new", **options)).error == error
            assert (await do(sandbox, "stat", "f")).last["etag"] == before
            assert list((await do(sandbox, "list", ".")).lines) == ["f"]

    async def test_a_write_with_everything_right(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            etag = (await do(sandbox, "write", "f", b"old")).last["etag"]
            done = await do(
                sandbox,
                "write",
                "f",
                b"new",
                size=3,
                length=3,
                sha256=sha256(b"new"),
                checksum="sha512:" + hashlib.sha512(b"new").hexdigest(),
                if_match=f"another,{etag}",
            )
            assert done.error is None
            assert (await do(sandbox, "write", "g", b"", overwrite=False)).error is None
            assert (await do(sandbox, "read", "f", if_match=etag)).error == "changed"
            assert (await do(sandbox, "read", "f", if_match="*")).content == b"new"

    @pytest.mark.parametrize("ending", ["HUP", "TERM", "KILL"])
    async def test_a_signal_breaks_a_write_off(self, runtime: Runtime, ending: str) -> None:
        async with self.open(runtime) as sandbox:
            endpoint = await sandbox.start(file_request("write", "f"))
            await endpoint.send(b"half")
            endpoint.send_signal("WINCH")
            endpoint.send_signal(ending)
            done = await finish(endpoint)
            assert done.status == ExitStatus(signal=ending)
            assert done.error == "interrupted"
            assert (await do(sandbox, "list", ".")).lines == {}

    async def test_a_signal_breaks_a_read_off(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "f", BIG)
            endpoint = await sandbox.start(file_request("read", "f"))
            await endpoint.receive(Channel.OUTPUT, 1)
            endpoint.send_signal("HUP")
            done = await finish(endpoint)
            assert done.status == ExitStatus(signal="HUP")
            assert len(done.content) < len(BIG)
            with pytest.raises(ValueError, match="NONSENSE"):
                endpoint.send_signal("NONSENSE")

    async def test_closing_breaks_off(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            endpoint = await sandbox.start(file_request("write", "f"))
            await endpoint.send(b"half")
            async with trio.open_nursery() as nursery:

                async def wait_for_the_end() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await endpoint.receive(Channel.OUTPUT, 1)

                nursery.start_soon(wait_for_the_end)
                await trio.testing.wait_all_tasks_blocked()
                await endpoint.aclose()
            await endpoint.aclose()
            assert await endpoint.wait() == ExitStatus(signal="KILL")
            with pytest.raises(trio.ClosedResourceError):
                await endpoint.send(b"more")
            assert (await do(sandbox, "list", ".")).lines == {}
            assert sandbox.statistics().endpoints_open == 0

    async def test_listing(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "top", b"12345")
            await do(sandbox, "write", "a/b/deep", b"", parents=True)
            flat = await do(sandbox, "list", ".")
            assert set(flat.lines) == {"top", "a"}
            assert flat.told[0]["type"] == "directory"
            assert flat.last == {"entries": 2}
            assert flat.lines["top"]["size"] == 5
            tree = await do(sandbox, "list", ".", depth=3)
            assert set(tree.lines) == {"top", "a", "a/b", "a/b/deep"}
            order = list(tree.lines)
            assert order.index("a") < order.index("a/b") < order.index("a/b/deep")
            assert (await do(sandbox, "list", "top")).error == "not_a_directory"
            assert (await do(sandbox, "list", "nowhere")).error == "not_found"

    async def test_directories(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            made = (await do(sandbox, "mkdir", "d", mode=0o750, modified=10**18)).last
            assert (made["type"], made["mode"], made["modified"]) == ("directory", 0o750, 10**18)
            assert (await do(sandbox, "mkdir", "d")).error == "exists"
            assert (await do(sandbox, "mkdir", "x/y/z")).error == "not_found"
            assert (await do(sandbox, "mkdir", "x/y/z", parents=True)).error is None
            assert (await do(sandbox, "mkdir", "x/y/z", parents=True, mode=0o700)).error is None
            await do(sandbox, "write", "f", b"")
            assert (await do(sandbox, "mkdir", "f", parents=True)).error == "not_a_directory"
            assert (await do(sandbox, "mkdir", "f/g", parents=True)).error == "not_a_directory"
            assert (await do(sandbox, "write", "d", b"")).error == "is_a_directory"
            assert (await do(sandbox, "write", "new/", b"")).error == "is_a_directory"
            assert (await do(sandbox, "write", "f/g", b"")).error == "not_a_directory"
            assert (await do(sandbox, "write", "no/g", b"")).error == "not_found"
            assert (await do(sandbox, "read", "d")).error == "is_a_directory"

    async def test_moving(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "a", b"a")
            await do(sandbox, "write", "b", b"b")
            assert (await do(sandbox, "move", "a", target="b", overwrite=False)).error == "exists"
            assert (await do(sandbox, "move", "a", target="b", if_match="x")).error == "changed"
            assert (await do(sandbox, "move", "a", target="c", overwrite=False)).error is None
            assert (await do(sandbox, "move", "c", target="b")).last["path"] == "b"
            assert (await do(sandbox, "read", "b")).content == b"a"
            assert (await do(sandbox, "move", "c", target="d")).error == "not_found"
            assert (await do(sandbox, "move", "b", target="no/b")).error == "not_found"
            assert (await do(sandbox, "move", "b")).error == "invalid"
            assert set((await do(sandbox, "list", ".")).lines) == {"b"}

    async def test_removing(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "d/e/f", b"", parents=True)
            etag = (await do(sandbox, "write", "g", b"")).last["etag"]
            assert (await do(sandbox, "remove", "d")).error == "not_empty"
            assert (await do(sandbox, "remove", "g", if_match="x")).error == "changed"
            assert (await do(sandbox, "remove", "g", if_match=etag)).error is None
            assert (await do(sandbox, "remove", "d/e/f")).error is None
            assert (await do(sandbox, "remove", "d/e")).error is None
            await do(sandbox, "write", "d/x/y/z", b"", parents=True)
            assert (await do(sandbox, "remove", "d", recursive=True)).error is None
            assert (await do(sandbox, "remove", "d")).error == "not_found"
            assert (await do(sandbox, "list", ".")).lines == {}

    @pytest.mark.parametrize("path", ["/", ".", "..", "../..", "./."])
    async def test_the_home_and_what_is_above_stay(self, runtime: Runtime, path: str) -> None:
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "f", b"precious")
            done = await do(sandbox, "remove", path, recursive=True)
            assert done.error in {"forbidden", "invalid"}
            assert (await do(sandbox, "read", "f")).content == b"precious"

    async def test_an_upload_in_parts(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            first = await do(
                sandbox,
                "write",
                "d/f",
                BIG[:700],
                upload=UPLOAD,
                size=len(BIG),
                note="n",
                parents=True,
            )
            assert first.last["offset"] == 700
            assert not first.last["complete"]
            assert (await do(sandbox, "stat", "d/f")).error == "not_found"
            wrong = await do(sandbox, "write", "d/f", b"x", upload=UPLOAD, offset=3)
            assert wrong.error == "range"
            assert wrong.last["offset"] == 700
            broken = await sandbox.start(file_request("write", ".", upload=UPLOAD, offset=700))
            await broken.send(BIG[700:900])
            known = (await do(sandbox, "stat", ".", upload=UPLOAD)).last  # breaks the other off
            assert known == {
                "upload": UPLOAD,
                "path": "d/f",
                "offset": 900,
                "size": len(BIG),
                "complete": False,
                "note": "n",
            }
            assert (await finish(broken)).error == "interrupted"
            last = await do(
                sandbox, "write", ".", BIG[900:], upload=UPLOAD, offset=900, sha256=sha256(BIG)
            )
            assert last.last["complete"]
            assert last.last["created"]
            assert (await do(sandbox, "read", "d/f")).content == BIG
            again = (await do(sandbox, "stat", ".", upload=UPLOAD)).last
            assert again["complete"]
            assert again["sha256"] == sha256(BIG)
            repeated = await do(sandbox, "write", ".", b"", upload=UPLOAD, offset=len(BIG))
            assert repeated.last["complete"]
            assert list((await do(sandbox, "list", "d")).lines) == ["f"]

    async def test_a_part_with_a_wrong_checksum_does_not_count(self, runtime: Runtime) -> None:
        wrong = "sha256:" + "0" * 64
        right = "sha1:" + hashlib.sha1(b"cd", usedforsecurity=False).hexdigest()
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "f", b"ab", upload=UPLOAD, size=6)
            options = {"upload": UPLOAD, "offset": 2}
            assert (await do(sandbox, "write", ".", b"xx", checksum=wrong, **options)).error == (
                "mismatch"
            )
            short = await do(sandbox, "write", ".", b"c", checksum=right, length=2, **options)
            assert short.error == "mismatch"
            cut = await sandbox.start(file_request("write", ".", checksum=right, **options))
            await cut.send(b"c")
            assert (await do(sandbox, "stat", ".", upload=UPLOAD)).last["offset"] == 2
            assert (await finish(cut)).error == "interrupted"
            good = await do(sandbox, "write", ".", b"cd", checksum=right, **options)
            assert good.last["offset"] == 4
            done = await do(
                sandbox, "write", ".", b"ef", upload=UPLOAD, offset=4, sha256=sha256(b"abcdef")
            )
            assert done.last["complete"]
            assert (await do(sandbox, "read", "f")).content == b"abcdef"

    async def test_an_upload_that_fails_is_forgotten(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            bad = await do(sandbox, "write", "f", b"abc", upload=UPLOAD, size=3, sha256="0" * 64)
            assert bad.error == "mismatch"
            assert (await do(sandbox, "stat", ".", upload=UPLOAD)).error == "not_found"
            assert (await do(sandbox, "list", ".")).lines == {}
            assert (await do(sandbox, "write", ".", b"", upload=UPLOAD)).error == "not_found"

    async def test_giving_an_upload_up(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            await do(sandbox, "write", "f", b"a", upload=UPLOAD, size=3)
            assert (await do(sandbox, "remove", ".", upload=UPLOAD)).last["offset"] == 1
            assert (await do(sandbox, "stat", ".", upload=UPLOAD)).error == "not_found"
            assert (await do(sandbox, "list", ".", upload="other-upload-name")).error == "not_found"
            await do(sandbox, "write", "f", b"a", upload=UPLOAD, size=3)
            assert (await do(sandbox, "list", ".", upload=UPLOAD)).error == "invalid"

    async def test_an_empty_upload_is_complete_at_once(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            done = await do(sandbox, "write", "empty", b"", upload=UPLOAD, size=0)
            assert done.last["complete"]
            assert (await do(sandbox, "stat", "empty")).last["size"] == 0

    async def test_what_is_too_large_for_the_disk(self, runtime: Runtime) -> None:
        async with self.open(runtime) as sandbox:
            assert (await do(sandbox, "write", "f", b"", size=2**62)).error == "no_space"
            done = await do(sandbox, "write", "f", b"", size=2**62, upload=UPLOAD)
            assert done.error == "no_space"
            assert (await do(sandbox, "list", ".")).lines == {}
