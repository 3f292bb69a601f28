from __future__ import annotations

import pytest

from api.media_types import disposition, media_type


@pytest.mark.parametrize(
    ("path", "expected", "kind"),
    [
        ("a/b.txt", "text/plain; charset=utf-8", "inline"),
        ("page.html", "text/html; charset=utf-8", "attachment"),
        ("drawing.svg", "image/svg+xml", "attachment"),
        ("photo.png", "image/png", "inline"),
        ("feed.xml", "text/xml; charset=utf-8", "attachment"),
        ("paper.pdf", "application/pdf", "attachment"),
        ("data.json", "application/json", "inline"),
        ("all.tar.gz", "application/gzip", "attachment"),
        ("all.tar.bz2", "application/x-bzip2", "attachment"),
        ("prog.Z", "application/octet-stream", "attachment"),
        ("Makefile", "application/octet-stream", "attachment"),
        ("", "application/octet-stream", "attachment"),
    ],
)
def test_types(path: str, expected: str, kind: str) -> None:
    assert media_type(path) == expected
    assert disposition(path, expected).startswith(f"{kind};")


def test_names_cannot_break_out_of_the_header() -> None:
    field = disposition('d/na"me\r\n; x=\\ä%.txt', "text/plain")
    assert "\r" not in field
    assert "\n" not in field
    assert field.startswith('inline; filename="na_me__; x=___.txt"; ')
    assert "filename*=UTF-8''na%22me%0D%0A%3B%20x%3D%5C%C3%A4%25.txt" in field
