"""How messages leave: signed, once, to public addresses only."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.waiting import HANG_S
from likeness.errors import StorageUnavailable, UsageError
from likeness.jobs.job import Notice
from likeness.jobs.messages import Message
from likeness.net.urls import WebUrl
from likeness.worker import senders
from likeness.worker.senders import (
    SendOptions,
    check_notice,
    check_webhook,
    send_mail,
    send_webhook,
    signature,
    tenant_secret,
)

OPTIONS = SendOptions(b"secret", private_webhooks=True)


def message(target: str, kind: str = "webhook") -> Message:
    said = {
        "eventName": "InferenceResult",
        "invocationStatus": "Failed",
        "failureReason": "ClientError: too few photos",
    }
    return Message("id-1", "job-1", "anna", kind, target, json.dumps(said), 0)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers here may be slow: the machine has other things to do."""
    monkeypatch.setattr(senders, "TIMEOUT_S", HANG_S)


@contextmanager
def listener(status: int = 200, location: str | None = None) -> Iterator[tuple[str, list[Any]]]:
    """An HTTP server on this machine: its URL, and what it was sent."""
    heard: list[Any] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()

        def log_message(self, *words: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_can_be_verified_by_its_tenant_only() -> None:
    """With the library that receivers use."""
    receivers = pytest.importorskip("standardwebhooks", reason="the receivers' library is not installed")
    with listener() as (url, heard):
        send_webhook(message(f"{url}/hook?x=1"), OPTIONS)
    ((path, headers, body),) = heard
    assert path == "/hook?x=1"
    assert headers["Host"] == url.removeprefix("http://")
    assert headers["webhook-id"] == "id-1"
    said = receivers.Webhook(tenant_secret(b"secret", "anna")).verify(body, headers)
    assert said == json.loads(message("").body)
    for wrong, content in ((tenant_secret(b"secret", "ben"), body), (tenant_secret(b"secret", "anna"), body + b" ")):
        with pytest.raises(receivers.WebhookVerificationError):
            receivers.Webhook(wrong).verify(content, headers)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of standardwebhooks.com's libraries."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", '{"test": 2432232314}'
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [302, 307, 404, 500])
def test_whatever_is_no_2xx_was_not_taken_and_redirects_are_not_followed(status: int) -> None:
    with listener() as (elsewhere, heard), listener(status, elsewhere) as (url, _):
        with pytest.raises(StorageUnavailable, match=str(status)):
            send_webhook(message(url), OPTIONS)
        assert heard == []


def test_an_endpoint_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        send_webhook(message(f"http://127.0.0.1:{silent.getsockname()[1]}/"), OPTIONS)


@contextmanager
def trickling(start: bytes, again: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that says `start`, and then `again` every 50 ms until the client goes away; gives its address."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        line, _ = server.accept()
        with suppress(OSError), line if tls is None else tls.wrap_socket(line, server_side=True) as line:
            line.recv(65536)
            line.sendall(start)
            for _ in range(600):  # or 30 s, where the client does not
                time.sleep(0.05)
                line.sendall(again)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}/"
    finally:
        thread.join()
        server.close()


TRICKLES = {
    "status": (b"HTTP/1.1 ", b"2"),
    "header": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("where", TRICKLES)
def test_who_answers_a_byte_at_a_time_is_given_up_at_one_deadline(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "TIMEOUT_S", 0.5)
    with trickling(*TRICKLES[where]) as address, pytest.raises(TimeoutError):
        send_webhook(message(f"http://{address}"), OPTIONS)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself, and its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="the test's certificate is made with cryptography")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder, pem = tmp_path_factory.mktemp("tls"), serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"


def test_over_tls_too_an_answer_is_read_and_a_slow_one_given_up(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=certificate[0])
    tls.load_cert_chain(*certificate)
    monkeypatch.setattr("likeness.net.public_post.ssl.create_default_context", lambda: trusting)
    with trickling(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"x", tls) as address:
        send_webhook(message(f"https://{address}"), OPTIONS)
    monkeypatch.setattr(senders, "TIMEOUT_S", 1.0)
    with trickling(*TRICKLES["header"], tls) as address, pytest.raises(TimeoutError):
        send_webhook(message(f"https://{address}"), OPTIONS)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "https://user:word@example.com/", "https://[x]/", "https://localhost/",
        "https://a.localhost/", "https://127.0.0.1/", "https://10.0.0.1/", "https://192.168.1.1/", "https://0.0.0.0/",
        "https://169.254.169.254/latest/meta-data", "https://100.64.0.1/", "https://[::1]/", "https://[fd00::1]/",
        "https://[::ffff:127.0.0.1]/", "https://[::127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
        "https://[64:ff9b:1::7f00:1]/", "https://[2001:0:7f00:1::]/", "https://[2002:7f00:1::]/",
    ],
)  # fmt: skip
def test_private_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        check_webhook(url, private_webhooks=False)


def test_a_public_address_is_taken() -> None:
    found = check_webhook("https://example.com/a?b=c", private_webhooks=False)
    assert found == WebUrl("https", "example.com", 443, "/a?b=c")
    check_webhook("https://8.8.8.8/", private_webhooks=False)
    check_webhook("https://[2606:4700::1111]/", private_webhooks=False)


@given(st.text(max_size=60) | st.text("[]:.@/%x1", max_size=20).map("https://{}".format))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        url = check_webhook(text, private_webhooks=False)
    except UsageError:
        return
    assert url.scheme == "https" and url.host and url.user is None


def test_a_name_that_means_this_machine_is_refused_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name looked public when the job was ordered, and is judged by what it means now."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **named: found)
    with pytest.raises(UsageError, match="private"):
        send_webhook(message("https://innocent.example/"), SendOptions(b"secret"))


def test_who_cannot_be_told_is_refused_with_the_order() -> None:
    topic = "arn:aws:sns:eu-west-1:123456789012:jobs"
    options = SendOptions(b"secret", smtp="smtp://localhost", sns_topics=(topic,))
    for good in (Notice("webhook", "https://example.com/"), Notice("mail", "a@example.com"), Notice("sns", topic)):
        check_notice(good, options)
    bad = [
        Notice("webhook", "https://10.0.0.1/"), Notice("mail", "a@b\r\nBcc: c@d"), Notice("sns", f"{topic}2"),
        Notice("object", "s3://elsewhere/x"),
    ]  # fmt: skip
    for notice in bad:
        with pytest.raises(UsageError):
            check_notice(notice, options)
    with pytest.raises(UsageError, match="mail server"):
        check_notice(Notice("mail", "a@example.com"), SendOptions(b"secret"))


def mail_server(heard: list[str]) -> tuple[socket.socket, threading.Thread]:
    """As much of SMTP (RFC 5321) as one mail needs."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = server.accept()
        with client, client.makefile("rwb") as lines:

            def say(text: str) -> None:
                lines.write(f"{text}\r\n".encode())
                lines.flush()

            say("220 test")
            in_data = False
            for raw in lines:
                line = raw.decode().rstrip("\r\n")
                heard.append(line)
                if in_data:
                    if line == ".":
                        in_data = False
                        say("250 taken")
                elif line.upper() == "DATA":
                    in_data = True
                    say("354 go on")
                elif line.upper() == "QUIT":
                    say("221 bye")
                    return
                else:
                    say("250 fine")

    thread = threading.Thread(target=serve)
    thread.start()
    return server, thread


def test_a_mail_says_what_became_of_the_job() -> None:
    heard: list[str] = []
    server, thread = mail_server(heard)
    with server:
        options = SendOptions(b"secret", smtp=f"smtp://127.0.0.1:{server.getsockname()[1]}", mail_from="us@example.com")
        send_mail(message("anna@example.com", "mail"), options)
        thread.join()
    assert any(line.lower().startswith("rcpt to:<anna@example.com>") for line in heard)  # upper case since Python 3.13
    assert "Subject: Likeness: Failed" in heard
    assert "Message-ID: <id-1@likeness>" in heard
    assert "ClientError: too few photos" in heard
