from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.tus import TusError, parse_checksum, parse_metadata, parse_number


def test_numbers() -> None:
    assert parse_number("Upload-Offset", "0") == 0
    assert parse_number("Upload-Offset", str(2**62)) == 2**62
    for value in (None, "", "-1", "1.0", "0x1", " 1", "٣", str(2**63)):
        with pytest.raises(TusError) as caught:
            parse_number("Upload-Offset", value)
        assert caught.value.field == "Upload-Offset"


def test_metadata() -> None:
    assert parse_metadata(None) == {}
    assert parse_metadata("") == {}
    assert parse_metadata("path Zi50eHQ=,is_confidential,  x ") == {
        "path": "f.txt",
        "is_confidential": "",
        "x": "",
    }
    assert parse_metadata("path Zg==,binary /w==") == {"path": "f"}
    for value in ("path !", "a b c", ",", "ä Zg==", "a Zg==,a Zg==", "a " + "Z" * 5000):
        with pytest.raises(TusError):
            parse_metadata(value)


@given(st.dictionaries(st.from_regex(r"\A[a-z]{1,9}\Z"), st.text(max_size=20), max_size=5))
def test_metadata_survives_the_way(values: dict[str, str]) -> None:
    field = ",".join(f"{k} {b64encode(v.encode()).decode()}" for k, v in values.items())
    assert parse_metadata(field) == values


def test_checksums() -> None:
    assert parse_checksum(None) is None
    value = hashlib.sha1(b"x", usedforsecurity=False)
    parsed = parse_checksum(f"sha1 {b64encode(value.digest()).decode()}")
    assert str(parsed) == f"sha1:{value.hexdigest()}"
    for bad in ("", "sha1", "md5 AAAA", "sha1 AAAA", "sha1 ?", "SHA1 AAAA"):
        with pytest.raises(TusError):
            parse_checksum(bad)
