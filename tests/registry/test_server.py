"""The points of the OCI distribution specification 1.1, asked of a real process over real sockets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.registry.serving import (
    EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Serving,
    descriptor,
    digest_of,
    manifest,
)

NOWHERE = "sha256:" + "0" * 64
UPLOAD = "/v2/no/blobs/uploads/00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "NAME_UNKNOWN"),
        ("GET", "/v1/_ping", 404, "NAME_UNKNOWN"),
        ("POST", "/v2/", 405, "UNSUPPORTED"),
        ("GET", "/v2/no/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/no/manifests/latest", 404, "NAME_UNKNOWN"),
        ("GET", f"/v2/no/manifests/{NOWHERE}", 404, "NAME_UNKNOWN"),
        ("GET", f"/v2/no/blobs/{NOWHERE}", 404, "BLOB_UNKNOWN"),
        ("DELETE", f"/v2/no/blobs/{NOWHERE}", 404, "BLOB_UNKNOWN"),
        ("DELETE", "/v2/no/manifests/latest", 404, "NAME_UNKNOWN"),
        ("PUT", f"/v2/no/blobs/{NOWHERE}", 405, "UNSUPPORTED"),
        ("GET", "/v2/no/blobs/sha256:zz", 400, "DIGEST_INVALID"),
        ("GET", "/v2/no/blobs/md5:" + "0" * 32, 400, "DIGEST_INVALID"),
        ("GET", "/v2/no/referrers/sha256:zz", 400, "DIGEST_INVALID"),
        ("GET", "/v2/no/manifests/.hidden", 400, "TAG_INVALID"),
        ("GET", "/v2/no/manifests/" + "t" * 129, 400, "TAG_INVALID"),
        ("GET", "/v2/No/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a//b/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a/../b/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a/%2e%2e/%2e%2e/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a%00b/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/_tags/x/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/" + "a" * 256 + "/tags/list", 400, "NAME_INVALID"),
        ("GET", UPLOAD, 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", UPLOAD, 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", f"{UPLOAD}?digest={NOWHERE}", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", UPLOAD, 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v2/no/blobs/uploads/..", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("POST", "/v2/no/blobs/uploads/?digest=sha256:1", 400, "DIGEST_INVALID"),
        ("GET", "/v2/_catalog?n=x", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
    ],
)
def test_what_is_refused(registry: Serving, method: str, path: str, status: int, code: str) -> None:
    answer = registry.ask(method, path)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert answer.headers["content-type"] == "application/json"


def test_ping(registry: Serving) -> None:
    answer = registry.ask("GET", "/v2/")
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


# ------------------------------------------------------------------------------------ uploads


def test_upload_by_post_then_put(registry: Serving, name: str) -> None:
    data = b"whole"
    answer = registry.ask("PUT", f"{registry.begin(name)}?digest={digest_of(data)}", data)
    assert answer.status == 201
    assert answer.headers["docker-content-digest"] == digest_of(data)
    got = registry.ask("GET", answer.headers["location"])
    assert (got.status, got.body) == (200, data)
    assert got.headers["docker-content-digest"] == digest_of(data)
    assert got.headers["accept-ranges"] == "bytes"


def test_upload_in_one_post(registry: Serving, name: str) -> None:
    for data in (b"one", b"", b"x" * (3 << 20)):
        digest = registry.push_blob(name, data)
        assert registry.ask("GET", f"/v2/{name}/blobs/{digest}").body == data


def test_upload_in_chunks(registry: Serving, name: str) -> None:
    data = bytes(range(256)) * 40
    place = registry.begin(name)
    answer = registry.ask("GET", place)
    assert (answer.status, answer.headers["range"]) == (204, "0-0")
    for start in (0, 4000, 8000):
        part = data[start : start + 4000]
        where = {"Content-Range": f"{start}-{start + len(part) - 1}"}
        answer = registry.ask("PATCH", place, part, where)
        assert answer.status == 202
        assert answer.headers["range"] == f"0-{start + len(part) - 1}"
        assert answer.headers["docker-upload-uuid"] in answer.headers["location"]
        place = answer.headers["location"]
    answer = registry.ask("PUT", f"{place}?digest={quote(digest_of(data))}")
    assert answer.status == 201
    assert registry.ask("GET", answer.headers["location"]).body == data
    assert registry.ask("GET", place).status == 404


def test_a_chunk_out_of_order_is_refused_and_told_where_to_go_on(
    registry: Serving, name: str
) -> None:
    place = registry.begin(name)
    assert registry.ask("PATCH", place, b"abc", {"Content-Range": "0-2"}).status == 202
    for first in ("0-2", "4-6"):
        answer = registry.ask("PATCH", place, b"abc", {"Content-Range": first})
        assert (answer.status, answer.headers["range"]) == (416, "0-2")
    assert registry.ask("PATCH", place, b"abc", {"Content-Range": "3-9"}).code == "SIZE_INVALID"
    answer = registry.ask("PATCH", place, b"abc", {"Content-Range": "three"})
    assert answer.code == "BLOB_UPLOAD_INVALID"
    data = b"abcdef"
    answer = registry.ask(
        "PUT", f"{place}?digest={digest_of(data)}", b"def", {"Content-Range": "3-5"}
    )
    assert answer.status == 201


def test_a_body_without_a_length_is_taken(registry: Serving, name: str) -> None:
    place = registry.begin(name)
    connection = registry.connect()
    connection.request("PATCH", place, iter([b"ab", b"cd"]), encode_chunked=True)
    assert connection.getresponse().headers["Range"] == "0-3"
    connection.close()


def test_another_digest_than_promised_drops_the_upload(registry: Serving, name: str) -> None:
    place = registry.begin(name)
    answer = registry.ask("PUT", f"{place}?digest={digest_of(b'this')}", b"that")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.ask("GET", place).status == 404
    assert registry.ask("HEAD", f"/v2/{name}/blobs/{digest_of(b'that')}").status == 404
    answer = registry.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(b'this')}", b"that")
    assert answer.code == "DIGEST_INVALID"
    assert registry.ask("PUT", registry.begin(name), b"x").code == "DIGEST_INVALID"


def test_an_upload_can_be_given_up(registry: Serving, name: str) -> None:
    place = registry.begin(name)
    assert registry.ask("DELETE", place).status == 204
    assert registry.ask("GET", place).code == "BLOB_UPLOAD_UNKNOWN"


def test_an_upload_belongs_to_its_repository(registry: Serving, name: str) -> None:
    place = registry.begin(name)
    assert registry.ask("GET", place.replace(name, f"{name}x")).status == 404


def test_sha512(registry: Serving, name: str) -> None:
    path = f"/v2/{name}/blobs/uploads/"
    for query in ("", "?digest-algorithm=sha512"):
        data = b"long digest" + query.encode()
        digest = "sha512:" + hashlib.sha512(data).hexdigest()
        place = registry.ask("POST", f"{path}{query}").headers["location"]
        assert registry.ask("PUT", f"{place}?digest={digest}", data).status == 201
        assert registry.ask("GET", f"/v2/{name}/blobs/{digest}").body == data
    assert registry.ask("POST", f"{path}?digest-algorithm=md5").code == "DIGEST_INVALID"


def test_mounts(registry: Serving, name: str) -> None:
    digest = registry.push_blob(f"{name}/from", b"shared by name")
    path = f"/v2/{name}/to/blobs/uploads/?mount={digest}"
    assert registry.ask("GET", f"/v2/{name}/to/blobs/{digest}").status == 404
    answer = registry.ask("POST", f"{path}&from={name}/from")
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/{name}/to/blobs/{digest}")
    assert registry.ask("DELETE", f"/v2/{name}/from/blobs/{digest}").status == 202
    assert registry.ask("GET", f"/v2/{name}/to/blobs/{digest}").body == b"shared by name"
    assert registry.ask("POST", path).status == 201
    answer = registry.ask("POST", f"/v2/{name}/to/blobs/uploads/?mount={NOWHERE}&from={name}/from")
    assert answer.status == 202


# ---------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize(
    ("asked", "status", "answered", "body"),
    [
        ("bytes=0-3", 206, "bytes 0-3/10", b"0123"),
        ("bytes=8-", 206, "bytes 8-9/10", b"89"),
        ("bytes=8-99", 206, "bytes 8-9/10", b"89"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=-99", 206, "bytes 0-9/10", b"0123456789"),
        ("bytes=10-", 416, "bytes */10", b""),
        ("bytes=-0", 416, "bytes */10", b""),
        ("bytes=5-3", 416, "bytes */10", b""),
        ("bytes=0-1,4-5", 200, None, b"0123456789"),
        ("lines=1-2", 200, None, b"0123456789"),
    ],
)
def test_ranges(
    registry: Serving, asked: str, status: int, answered: str | None, body: bytes
) -> None:
    digest = registry.push_blob("tests/ranges", b"0123456789")
    answer = registry.ask("GET", f"/v2/tests/ranges/blobs/{digest}", headers={"Range": asked})
    assert (answer.status, answer.headers.get("content-range"), answer.body) == (
        status,
        answered,
        body,
    )


def test_what_the_client_has_is_not_sent_again(registry: Serving, name: str) -> None:
    digest = registry.push_image(name, "latest")
    answer = registry.ask(
        "GET", f"/v2/{name}/manifests/latest", headers={"If-None-Match": f'"{digest}"'}
    )
    assert (answer.status, answer.body) == (304, b"")


def test_head_tells_size_and_digest(registry: Serving, name: str) -> None:
    digest = registry.push_image(name, "latest", b"12345")
    answer = registry.ask("HEAD", f"/v2/{name}/blobs/{digest_of(b'12345')}")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5", b"")
    for reference in ("latest", digest):
        head = registry.ask("HEAD", f"/v2/{name}/manifests/{reference}")
        got = registry.ask("GET", f"/v2/{name}/manifests/{reference}")
        assert head.headers["content-length"] == str(len(got.body))
        assert head.headers["docker-content-digest"] == digest == digest_of(got.body)
        assert head.headers["content-type"] == got.headers["content-type"] == OCI_MANIFEST


# ---------------------------------------------------------------------------------- manifests


def test_a_manifest_comes_back_byte_for_byte(registry: Serving, name: str) -> None:
    data = json.dumps(registry.image(name), indent=3).encode() + b"\n"
    answer = registry.ask("PUT", f"/v2/{name}/manifests/v1", data, {"Content-Type": OCI_MANIFEST})
    assert answer.status == 201
    assert answer.headers["docker-content-digest"] == digest_of(data)
    assert registry.ask("GET", answer.headers["location"]).body == data


def test_tags_come_with_a_digest(registry: Serving, name: str) -> None:
    document = registry.image(name)
    digest = digest_of(json.dumps(document).encode())
    many = "".join(f"&tag=t{number}" for number in range(101))
    _, answer = registry.push_manifest(name, f"{digest}?x=y{many}", document)
    assert answer.status == 414
    assert registry.push_manifest(name, f"{digest}?tag=-", document)[1].code == "TAG_INVALID"
    assert registry.ask("GET", f"/v2/{name}/manifests/{digest}").status == 404
    _, answer = registry.push_manifest(name, f"{digest}?tag=1.2&tag=1&tag=latest", document)
    assert (answer.status, answer.headers["oci-tag"]) == (201, "1.2, 1, latest")
    assert registry.ask("GET", f"/v2/{name}/tags/list").json()["tags"] == ["1", "1.2", "latest"]


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (b"", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"[]", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"{}", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"[" * 100_000, OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"\xff", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b'{"schemaVersion": 1}', "", "MANIFEST_INVALID"),
        (json.dumps(manifest()).encode(), OCI_INDEX, "MANIFEST_INVALID"),
        (json.dumps(manifest()).encode(), "application/x-else", "MANIFEST_INVALID"),
        (json.dumps({**manifest(), "manifests": []}).encode(), OCI_MANIFEST, "MANIFEST_INVALID"),
        (json.dumps(manifest(b"not there")).encode(), OCI_MANIFEST, "MANIFEST_BLOB_UNKNOWN"),
        (b" " * ((4 << 20) + 1), OCI_MANIFEST, "SIZE_INVALID"),
    ],
    ids=range(11),
)
def test_what_is_no_manifest(registry: Serving, data: bytes, kind: str, code: str) -> None:
    for content in (b"{}", b"layer"):
        registry.push_blob("tests/wrong", content)
    answer = registry.ask("PUT", "/v2/tests/wrong/manifests/x", data, {"Content-Type": kind})
    assert answer.code == code
    assert answer.status == (413 if code == "SIZE_INVALID" else 400)
    assert registry.ask("GET", "/v2/tests/wrong/manifests/x").code == "MANIFEST_UNKNOWN"


def test_digest_and_sizes_of_a_manifest_are_checked(registry: Serving, name: str) -> None:
    document = registry.image(name)
    data = json.dumps(document).encode()
    answer = registry.ask(
        "PUT", f"/v2/{name}/manifests/{NOWHERE}", data, {"Content-Type": OCI_MANIFEST}
    )
    assert answer.code == "DIGEST_INVALID"
    document["layers"] = [{**descriptor("application/x", b"layer"), "size": 6}]
    _, answer = registry.push_manifest(name, "x", document)
    assert answer.code == "MANIFEST_INVALID"


def test_indexes_need_their_manifests(registry: Serving, name: str) -> None:
    child = json.dumps(registry.image(name)).encode()
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, child)],
    }
    assert registry.push_manifest(name, "all", index)[1].code == "MANIFEST_BLOB_UNKNOWN"
    registry.push_image(name, "one")
    assert registry.push_manifest(name, "all", index)[1].status == 201
    assert registry.ask("GET", f"/v2/{name}/manifests/all").headers["content-type"] == OCI_INDEX


def test_foreign_layers_may_be_elsewhere(registry: Serving, name: str) -> None:
    document = registry.image(name)
    document["layers"] = [
        {**descriptor("application/x", b"far away"), "urls": ["https://example.com/layer"]}
    ]
    assert registry.push_manifest(name, "x", document)[1].status == 201


def test_deletion(registry: Serving, name: str) -> None:
    digest = registry.push_image(name, "one")
    registry.push_image(name, "two")
    registry.push_image(name, "other", b"another")
    assert registry.ask("DELETE", f"/v2/{name}/manifests/one").status == 202
    assert registry.ask("GET", f"/v2/{name}/manifests/one").code == "MANIFEST_UNKNOWN"
    assert registry.ask("GET", f"/v2/{name}/manifests/{digest}").status == 200
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    assert registry.ask("GET", f"/v2/{name}/manifests/{digest}").code == "MANIFEST_UNKNOWN"
    assert registry.ask("GET", f"/v2/{name}/tags/list").json()["tags"] == ["other"]
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{digest}").code == "MANIFEST_UNKNOWN"
    blob = digest_of(b"layer")
    assert registry.ask("DELETE", f"/v2/{name}/blobs/{blob}").status == 202
    assert registry.ask("GET", f"/v2/{name}/blobs/{blob}").code == "BLOB_UNKNOWN"


# ----------------------------------------------------------------------------------- listings


def test_tags_are_listed_in_order_and_in_pages(registry: Serving, name: str) -> None:
    for tag in ("beta", "Alpha", "1.0", "gamma", "Delta"):
        registry.push_image(name, tag)
    path = f"/v2/{name}/tags/list"
    every = ["1.0", "Alpha", "beta", "Delta", "gamma"]
    assert registry.ask("GET", path).json() == {"name": name, "tags": every}
    assert registry.ask("GET", f"{path}?n=0").json()["tags"] == []
    found: list[object] = []
    where = f"{path}?n=2"
    while where:
        answer = registry.ask("GET", where)
        tags = answer.json()["tags"]
        assert isinstance(tags, list)
        assert len(tags) <= 2
        found += tags
        link = answer.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        where = link[1:].partition(">")[0]
    assert found == every
    assert registry.ask("GET", f"{path}?last=beta").json()["tags"] == ["Delta", "gamma"]


def test_the_catalog(registry: Serving, name: str) -> None:
    for path in (f"{name}/b", f"{name}/a/blobs", name):
        registry.push_image(path, "x")
    registry.push_blob(f"{name}/no-image", b"only a blob")
    every = registry.ask("GET", "/v2/_catalog").json()["repositories"]
    assert isinstance(every, list)
    assert [n for n in every if n.startswith(name)] == [name, f"{name}/a/blobs", f"{name}/b"]
    answer = registry.ask("GET", f"/v2/_catalog?n=1&last={quote(name)}")
    assert answer.json()["repositories"] == [f"{name}/a/blobs"]
    assert answer.headers["link"].startswith("</v2/_catalog?n=1&last=")


def test_referrers(registry: Serving, name: str) -> None:
    subject = {**descriptor(OCI_MANIFEST, json.dumps(manifest()).encode())}
    path = f"/v2/{name}/referrers/{subject['digest']}"
    answer = registry.ask("GET", path)
    assert (answer.status, answer.json()["manifests"]) == (200, [])
    registry.image(name)
    referrers = {}
    for kind, note in (("application/x.signature", "s"), ("application/x.sbom", "b")):
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind,
            "config": descriptor(EMPTY, b"{}"),
            "layers": [descriptor(EMPTY, b"{}")],
            "subject": subject,
            "annotations": {"note": note},
        }
        digest, answer = registry.push_manifest(name, "", document)
        # The subject may come later.
        assert (answer.status, answer.headers["oci-subject"]) == (201, subject["digest"])
        referrers[kind] = {
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": len(json.dumps(document)),
            "artifactType": kind,
            "annotations": {"note": note},
        }
    by_config = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/x.config", b"{}"),
        "layers": [],
        "subject": subject,
    }
    digest, _ = registry.push_manifest(name, "", by_config)
    answer = registry.ask("GET", path)
    assert answer.headers["content-type"] == OCI_INDEX
    listed = answer.json()["manifests"]
    assert isinstance(listed, list)
    assert {entry["artifactType"] for entry in listed} == {*referrers, "application/x.config"}
    kind = "application/x.signature"
    answer = registry.ask("GET", f"{path}?artifactType={quote(kind)}")
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert answer.json()["manifests"] == [referrers[kind]]
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    assert len(registry.ask("GET", path).json()["manifests"]) == 2  # type: ignore[arg-type]  # a list


def test_long_lists_of_referrers_come_in_pages(registry: Serving, name: str) -> None:
    subject = descriptor(OCI_MANIFEST, b"nobody has it")
    registry.push_blob(name, b"{}")
    for number in range(3):
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(EMPTY, b"{}"),
            "layers": [],
            "subject": subject,
            "annotations": {"long": str(number) * (2 << 20)},
        }
        assert registry.push_manifest(name, "", document)[1].status == 201
    where = f"/v2/{name}/referrers/{subject['digest']}"
    pages = []
    while where:
        answer = registry.ask("GET", where)
        assert len(answer.body) <= 4 << 20
        entries = answer.json()["manifests"]
        assert isinstance(entries, list)
        pages.append(len(entries))
        where = answer.headers.get("link", "")[1:].partition(">")[0]
    assert sum(pages) == 3
    assert len(pages) > 1


# ------------------------------------------------------------------------------- other flags


def test_read_only(tmp_path: Path) -> None:
    registry = Serving(tmp_path)
    digest = registry.push_image("a", "x")
    registry.stop()
    registry = Serving(tmp_path, "--read-only")
    try:
        assert registry.ask("GET", f"/v2/a/manifests/{digest}").status == 200
        for method, path in (
            ("POST", "/v2/a/blobs/uploads/"),
            ("PUT", "/v2/a/manifests/y"),
            ("DELETE", f"/v2/a/manifests/{digest}"),
        ):
            answer = registry.ask(method, path)
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    finally:
        registry.stop()
