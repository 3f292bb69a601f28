"""What is vendored is what is pinned; a tarball or a file that differs is refused."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from web import static_root
from web.vendor import Package, VendorError, check, main, read_manifest, unpack

VENDOR = static_root() / "vendor"


def make_tarball(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make_package(tarball: bytes, files: dict[str, str]) -> Package:
    digest = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    return Package("thing", "1.0.0", "thing", f"sha512-{digest}", files)


def test_the_files_in_place_are_the_pinned_ones() -> None:
    result = CliRunner().invoke(main, ["--check"])
    assert result.exit_code == 0, result.output
    assert "@xterm/xterm 6.0.0" in result.output


def test_every_package_is_listed_and_brings_its_license() -> None:
    packages = read_manifest()
    assert {package.directory for package in packages} == {path.name for path in VENDOR.iterdir()}
    for package in packages:
        licences = list((VENDOR / package.directory).glob("LICENSE*"))
        assert licences, package.name
        assert all(path.read_text().strip() for path in licences)


def test_a_whole_package_keeps_its_places_and_brings_every_file() -> None:
    tarball = make_tarball({"core/a.js": b"1", "lib/a.js": b"2", "LICENSE": b"MIT"})
    files = {"core/a.js": "", "lib/a.js": "", "LICENSE": ""}
    package = dataclasses.replace(make_package(tarball, files), whole=True)
    assert unpack(package, tarball) == {"core/a.js": b"1", "lib/a.js": b"2", "LICENSE": b"MIT"}
    with pytest.raises(VendorError, match=r"lib/a\.js"):
        unpack(dataclasses.replace(package, files={"core/a.js": "", "LICENSE": ""}), tarball)


def test_what_novnc_is_made_of_comes_with_its_own_licences() -> None:
    novnc = VENDOR / "novnc"
    for path in ("LICENSE.txt", "docs/LICENSE.MPL-2.0", "vendor/pako/LICENSE", "AUTHORS"):
        assert (novnc / path).read_text().strip()


def test_no_source_maps() -> None:
    for path in VENDOR.rglob("*"):
        assert path.suffix != ".map"
        assert not path.is_file() or b"sourceMappingURL" not in path.read_bytes()


def test_unpack_takes_the_wanted_files_only() -> None:
    script = b"export {};\n//# sourceMappingURL=a.mjs.map\n"
    tarball = make_tarball({"lib/a.mjs": script, "LICENSE": b"MIT", "evil.js": b"x"})
    package = make_package(tarball, {"lib/a.mjs": "", "LICENSE": ""})
    assert unpack(package, tarball) == {"a.mjs": b"export {};\n", "LICENSE": b"MIT"}


def test_another_tarball_is_refused() -> None:
    tarball = make_tarball({"LICENSE": b"MIT"})
    package = make_package(tarball, {"LICENSE": ""})
    with pytest.raises(VendorError, match="thing: the tarball is sha512-"):
        unpack(package, make_tarball({"LICENSE": b"GPL"}))


def test_a_missing_file_is_named() -> None:
    tarball = make_tarball({"LICENSE": b"MIT"})
    with pytest.raises(VendorError, match=r"thing has no file lib/a\.mjs"):
        unpack(make_package(tarball, {"lib/a.mjs": ""}), tarball)


@pytest.mark.parametrize("damage", ["change", "add", "remove"])
def test_check_finds_every_difference(damage: str, tmp_path: Path) -> None:
    package = next(package for package in read_manifest() if package.directory == "addon-fit")
    copy = tmp_path / package.directory
    shutil.copytree(VENDOR / package.directory, copy)
    check(package, copy)
    if damage == "change":
        (copy / "LICENSE").write_text("mine")
    elif damage == "add":
        (copy / "extra.js").write_text("")
    else:
        (copy / "LICENSE").unlink()
    with pytest.raises(VendorError, match=r"extra\.js|LICENSE"):
        check(package, copy)


def test_check_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [dataclasses.replace(package, files={"LICENSE": "0"}) for package in read_manifest()]
    monkeypatch.setattr("web.vendor.read_manifest", lambda: wrong)
    result = CliRunner().invoke(main, ["--check"])
    assert result.exit_code == 1
    assert "Error:" in result.output
