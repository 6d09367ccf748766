"""The files of the web app: headers, size, third-party modules as pinned, nothing from elsewhere."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fixtures.waiting import HANG_S
from likeness.http.web import CONTENT_SECURITY_POLICY, files
from recipes.web_modules import CHECKSUMS, PACKAGES, VENDOR, for_browsers

MOST_BYTES = 150_000  # what the first page loads, beside pictures
OWN = {name: file for name, file in files().items() if not name.startswith("vendor/")}


def test_the_page_loads_only_from_its_server(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    for rule in ("default-src 'self'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert rule in CONTENT_SECURITY_POLICY.split("; ")
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", page.text), "inline code is blocked"


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_file_names_no_other_server(client: TestClient, name: str) -> None:
    sent = client.get(f"/web/{name}")
    assert (sent.status_code, sent.content) == (200, OWN[name].content)
    if not sent.headers["content-type"].startswith("image/jpeg"):
        elsewhere = set(re.findall(r"https?://[\w.-]+", sent.text)) - {"http://www.w3.org"}  # a namespace
        assert elsewhere == set()


def test_a_file_is_sent_again_only_if_it_has_changed(client: TestClient) -> None:
    etag = client.get("/web/main.js").headers["etag"]
    assert client.get("/web/main.js", headers={"If-None-Match": etag}).status_code == 304
    assert client.get("/web/main.js", headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.head("/web/main.js").headers["etag"] == etag


def test_what_is_no_file_of_the_app_is_not_sent(client: TestClient) -> None:
    for path in ("nothing.js", "../app.py", "%2e%2e/http/app.py", "vendor/preact.LICENSE"):
        assert client.get(f"/web/{path}").status_code == 404, path


def imported(name: str, found: set[str]) -> set[str]:
    """A module and all that it imports at once."""
    if name not in found:
        found.add(name)
        for target in re.findall(rb'(?:from ?|import ?)"(\.[^"]+)"', files()[name].content):
            folder = name.rpartition("/")[0]
            parts = [part for part in f"{folder}/{target.decode()}".split("/") if part not in ("", ".")]
            while ".." in parts:
                place = parts.index("..")
                del parts[place - 1 : place + 1]
            imported("/".join(parts), found)
    return found


def test_the_first_page_is_small() -> None:
    loaded = {"index.html", "style.css", "icon.svg"} | imported("main.js", set()) | imported("pages/welcome.js", set())
    assert "vendor/preact.js" in loaded
    assert sum(len(files()[name].content) for name in loaded) <= MOST_BYTES


def test_no_module_waits_until_another_has_come() -> None:
    """A browser finds the imports of a module only when it has come, so all are named beforehand."""
    page = files()["index.html"].content.decode()
    first = imported("main.js", set())
    assert set(re.findall(r'rel="modulepreload" href="/web/([^"]+)"', page)) == first
    frame = files()["components/frame.js"].content.decode()
    pages = frame[frame.index("const PAGES") : frame.index("};", frame.index("const PAGES"))]
    named = [re.findall(r'"([^"]+[.]js)"', files) for files in re.findall(r"\[([^\]]*)\]", pages)]
    assert {own[0] for own in named} == {name for name in OWN if name.startswith("pages/")}
    for own in named:
        assert sorted(own) == sorted(imported(own[0], set()) - first), own[0]


def test_every_module_and_picture_that_is_named_is_there() -> None:
    for name in OWN:
        if name.endswith(".js"):
            imported(name, set())
    named = re.findall(rb'file: "([\w.]+)"', files()["suggestions/samples.js"].content)
    assert len(named) >= 12
    assert {f"suggestions/{name.decode()}" for name in named} <= files().keys()


def test_third_party_modules_are_those_of_their_checksums() -> None:
    said = json.loads((VENDOR / CHECKSUMS).read_text())
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    assert there.keys() == said.keys() | {CHECKSUMS}
    assert {name: one["sha256"] for name, one in said.items()} == {name: there[name] for name in said}
    pinned = {name: (package.name, package.version) for package in PACKAGES for name in package.files.values()}
    assert {name: (one["package"], one["version"]) for name, one in said.items()} == pinned
    assert all(any(name.endswith("LICENSE") for name in package.files.values()) for package in PACKAGES)


def test_names_of_packages_become_paths() -> None:
    module = b'import{h}from"preact";export*from "@preact/signals-core";\n//# sourceMappingURL=x.mjs.map'
    assert for_browsers(module) == b'import{h}from"./preact.js";export*from "./signals-core.js";\n'
    with pytest.raises(KeyError):
        for_browsers(b'import"x";import y from"react"')


def test_the_modules_have_the_types_that_their_comments_say() -> None:
    """TypeScript's compiler reads JSDoc; it is no dependency, so it runs where it is installed."""
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("TypeScript's compiler is not installed (npm install --global typescript)")
    config = Path(__file__).parents[1] / "web" / "jsconfig.json"
    ran = subprocess.run([tsc, "--project", str(config)], capture_output=True, text=True, timeout=HANG_S)
    assert ran.returncode == 0, ran.stdout
    assert all(file.content.startswith(b"// @ts-check\n") for name, file in OWN.items() if name.endswith(".js"))
