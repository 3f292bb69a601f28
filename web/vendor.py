"""Fetch, or check, the pieces of other projects that the page is made with.

    python -m web.vendor            fetch them again and write web/static/vendor/
    python -m web.vendor --check    compare what lies there with vendor.toml; needs no network

`npm pack` fetches each package by name and version from whatever registry npm is set up for.  A
tarball must have the sha512 that `vendor.toml` names, and each file taken from it the sha256: a
fetch can bring back the very same bytes or fail, nothing else.  To take a newer version, change
`version` and `integrity`, empty the digests of its files, and run it with `--pin` once.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click

from web import static_root

MANIFEST = Path(__file__).with_name("vendor.toml")
_SOURCE_MAP = re.compile(rb"\n?(//# sourceMappingURL=\S+|/\*# sourceMappingURL=\S+ \*/)\s*\Z")


class VendorError(Exception):
    """Something is not what `vendor.toml` says; the message names it."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package of `vendor.toml`; `files` maps a path in it to a sha256 in hex.

    Of a `whole` one every file is taken and keeps its place; of another, those named, side by side.
    """

    name: str
    version: str
    directory: str
    integrity: str
    files: dict[str, str]
    whole: bool = False

    def place(self, path: str) -> str:
        """Return where a file of the package lies in `directory`."""
        return path if self.whole else PurePosixPath(path).name


def read_manifest(path: Path = MANIFEST) -> list[Package]:
    """Return the packages that `path` lists."""
    return [Package(**entry) for entry in tomllib.loads(path.read_text())["package"]]


def unpack(package: Package, tarball: bytes) -> dict[str, bytes]:
    """Return the wanted files of a package: place to content, without source map references.

    Raises:
      VendorError: the tarball is not the pinned one, or a file is missing.
    """
    digest = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if digest != package.integrity:
        raise VendorError(f"{package.name}: the tarball is {digest}, pinned is {package.integrity}")
    found: dict[str, bytes] = {}
    with tempfile.TemporaryFile() as file:
        file.write(tarball)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            if package.whole:
                present = {name.removeprefix("package/") for name in archive.getnames()}
                if stray := sorted(present ^ package.files.keys()):
                    raise VendorError(
                        f"{package.name}: {stray[0]} is in one of tarball and pins only"
                    )
            for wanted in package.files:
                try:
                    member = archive.extractfile(f"package/{wanted}")
                except KeyError:
                    member = None
                if member is None:
                    raise VendorError(f"{package.name} has no file {wanted}")
                found[package.place(wanted)] = _SOURCE_MAP.sub(b"\n", member.read())
    return found


def check(package: Package, directory: Path) -> None:
    """Compare `directory` with what is pinned: the very same files, no more and no less.

    Raises:
      VendorError: the first difference.
    """
    pinned = {package.place(path): digest for path, digest in package.files.items()}
    present = {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }
    for stray in sorted(present ^ pinned.keys()):
        word = "is missing" if stray in pinned else "should not be there"
        raise VendorError(f"{directory / stray} {word}")
    for name, digest in pinned.items():
        actual = hashlib.sha256((directory / name).read_bytes()).hexdigest()
        if actual != digest:
            raise VendorError(f"{directory / name} has sha256 {actual}, pinned is {digest}")


def _fetch(package: Package, scratch: Path) -> bytes:
    specifier = f"{package.name}@{package.version}"
    command = ["npm", "pack", specifier, "--pack-destination", str(scratch)]
    # The names come from vendor.toml, and no shell is involved.
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    (tarball,) = scratch.glob("*.tgz")
    return tarball.read_bytes()


def _write_digests(files: dict[str, str]) -> None:
    """Fill in the empty digests of the manifest; `files` maps "directory path" to a sha256."""
    lines = []
    directory = ""
    for line in MANIFEST.read_text().splitlines():
        if found := re.match(r'directory = "(.*)"', line):
            directory = found[1]
        if found := re.match(r'"(.*)" = ""$', line):
            line = f'"{found[1]}" = "{files[f"{directory} {found[1]}"]}"'
        lines.append(line)
    MANIFEST.write_text("\n".join(lines) + "\n")


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Compare only; needs no network.")
@click.option("--pin", is_flag=True, help="Fill in digests that vendor.toml leaves empty.")
def main(only_check: bool, pin: bool) -> None:
    """Fetch the vendored parts of the web page again, or check them."""
    root = static_root() / "vendor"
    digests: dict[str, str] = {}
    try:
        for package in read_manifest():
            directory = root / package.directory
            if not only_check:
                with tempfile.TemporaryDirectory() as scratch:
                    content = unpack(package, _fetch(package, Path(scratch)))
                for path in package.files:
                    name = package.place(path)
                    (directory / name).parent.mkdir(parents=True, exist_ok=True)
                    (directory / name).write_bytes(content[name])
                    digest = hashlib.sha256(content[name]).hexdigest()
                    digests[f"{package.directory} {path}"] = digest
            if not pin:
                check(package, directory)
            click.echo(f"{package.name} {package.version}")
        if pin:
            _write_digests(digests)
    except VendorError as error:
        raise click.ClickException(str(error)) from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise click.ClickException(f"npm pack failed: {error}") from error


if __name__ == "__main__":
    main()
