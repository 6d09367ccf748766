"""A URL means one host to every program, or it is refused."""

import ipaddress
from urllib.parse import urlsplit

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from likeness.errors import UsageError
from likeness.net.urls import WebUrl, is_host, web_url

WEB = ("http", "https")
PIECES = (
    "http://", "https://", "//", "user", ":", "@", "\\", "/", "?", "#", "%", "%40", "%2e", "[", "]", "::1",
    "fe80::1", "%25eth0",
    "127.0.0.1", "127.1", "0x7f000001", "017700000001", "2130706433", "1.2.3.4.", "localhost",
    "example.com", "xn--", "xn--a",
    "xn--bcher-kva.example", ".", "..", "-", "_", "0", "80", "65535", "65536", "+80", " ", "\t", "\n", "\0", "\x7f",
    "é", "。",
    "①②⑦", "\uff11", "\u00ad", "\u2100", "\u202e", "\ud800", "a" * 64,
)  # fmt: skip


def parsed(text: str) -> WebUrl:
    return web_url(text, schemes=WEB, what="the URL")


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join) | st.text(max_size=40).map("https://{}".format))
@example("http://evil\\@localhost/")
@example("http://[::1%25lo]/")
@example("http://a@b@c/")
def test_every_parser_reads_the_same_host_or_the_url_is_refused(text: str) -> None:
    try:
        url = parsed(text)
    except UsageError:
        return
    strict, common = httpx2.URL(text), urlsplit(text)
    assert url.host == strict.host == common.hostname
    assert url.port == (strict.port or (443 if url.scheme == "https" else 80)) and 1 <= url.port <= 65535
    assert text.isascii() and text.isprintable() and url.target.encode() == strict.raw_path
    if is_number(url.host.rpartition(".")[2]) or ":" in url.host:
        ipaddress.ip_address(url.host)


def is_number(label: str) -> bool:
    """Whether a browser takes a host with this last label for an IPv4 address."""
    try:
        int(label, 0 if label.lower().startswith("0x") else 10)
    except ValueError:
        return label.lower() == "0x"
    return True


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "http:", "http://", "http:///x", "http:x", "//x", "ftp://x/", "http://x#y", "http://x y/",
        "http://x/a b",
        "http://x:0/", "http://x:65536/", "http://x:+80/", "http://x:8o/", "http://x:1:2/", "http://@x/", "http://x\\y/",
        "http://x%41/", "http://x./", "http://a..b/", "http://.a/", "http://-a/", "http://a-/", f"http://{'a' * 64}/",
        "http://" + "a." * 130 + "b/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://1.2.3.256/",
        "http://a.0x/", "http://[1.2.3.4]/", "http://[::1/", "http://::1/", "http://[fe80::1%25eth0]/", "http://[v1.a]/",
        "http://xn--a/", "http://bücher.example/", "http://\uff11\uff12\uff17.0.0.1/", "http://x/é",
        "http://x/\n", "http://x/" + "a" * 2000,
    ],
)  # fmt: skip
def test_a_url_that_could_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the URL"):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "url", "origin"),
    [
        ("HTTPS://Example.COM", WebUrl("https", "example.com", 443), "https://example.com"),
        ("https://x.example:443/A?b=%20", WebUrl("https", "x.example", 443, "/A?b=%20"), "https://x.example"),
        ("http://[2001:DB8::1]:8080?a", WebUrl("http", "2001:db8::1", 8080, "/?a"), "http://[2001:db8::1]:8080"),
        ("http://u%40x:p%3A%2Fq@h_1/", WebUrl("http", "h_1", 80, "/", "u@x", "p:/q"), "http://h_1"),
        ("http://xn--bcher-kva.example/", WebUrl("http", "xn--bcher-kva.example", 80), "http://xn--bcher-kva.example"),
    ],
)
def test_the_parts_of_a_url(text: str, url: WebUrl, origin: str) -> None:
    found = parsed(text)
    assert (found, found.origin) == (url, origin)


def test_the_password_is_not_shown() -> None:
    assert "word" not in repr(parsed("http://user:word@x/"))


@given(st.text("abx.-_:[]%0129", max_size=12))
def test_a_host_is_a_name_or_an_address(text: str) -> None:
    if is_host(text):
        assert parsed(f"http://{text}/").host == text.strip("[]")
