"""How a message leaves: an object, a signed webhook, a mail, an SNS topic. Each raises where nobody took it.

Webhooks are signed as Stripe's and GitHub's are: HMAC-SHA256 over '<timestamp>.<body>', so that neither can be changed
nor an old one sent again. A webhook's address is looked up once, judged, and then connected to: what a name means can
not change in between, and redirects are not followed (CWE-918, server-side request forgery). The whole exchange has one
deadline, so that whoever answers a byte at a time holds nobody up (CWE-400).
"""

import hashlib
import hmac
import http.client
import io
import ipaddress
import json
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import StorageUnavailable, UsageError
from .locations import Locations
from .messages import Message
from .notify import Sender
from .types import Notice

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TIMEOUT_S = 10.0  # of a webhook, from connecting to the end of the answer
SIGNATURE = "X-Likeness-Signature"
TIMESTAMP = "X-Likeness-Timestamp"
DELIVERY = "X-Likeness-Delivery"
_MOST_ANSWER_BYTES = 1 << 16
_MAIL_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,200}")
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f]")  # what http.client refuses in a request's first line
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class SendOptions:
    """What the operator has set up for messages.

    Args:
        webhook_secret: of this installation; each tenant's own is derived from it, see `tenant_secret`.
        private_webhooks: addresses of this machine and of private networks may be called.
        smtp: `smtp://user:password@host:port` or `smtps://...`; None = no mail.
        sns_topics: the ARNs that may be told.
    """

    webhook_secret: bytes = field(repr=False)
    private_webhooks: bool = False
    smtp: str | None = field(default=None, repr=False)
    mail_from: str = "likeness@localhost"
    sns_topics: tuple[str, ...] = ()


def senders(options: SendOptions, locations: Locations) -> Mapping[str, Sender]:
    """One for each kind of notice."""
    return {
        "object": lambda message: locations.write(message.target, message.body.encode()),
        "webhook": lambda message: send_webhook(message, options),
        "mail": lambda message: send_mail(message, options),
        "sns": lambda message: send_sns(message, options),
    }


def tenant_secret(secret: bytes, tenant: str) -> str:
    """What a tenant verifies its webhooks with; of no use for another's."""
    return "whsec_" + hmac.new(secret, f"webhooks of {tenant}".encode(), hashlib.sha256).hexdigest()


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=<hex>` over '<timestamp>.<body>'."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def check_notice(notice: Notice, options: SendOptions) -> None:
    """Refuse who cannot be told, when the job is ordered and not when it is over.

    Raises:
        UsageError: no such kind, an address that may not be called, no mail server, a topic that is not ours.
    """
    if notice.kind == "webhook":
        check_webhook(notice.target, private_webhooks=options.private_webhooks)
    elif notice.kind == "mail":
        if options.smtp is None:
            raise UsageError("expected a mail server, got none", hint="set LIKENESS_SMTP")
        if not _MAIL_ADDRESS.fullmatch(notice.target):
            raise UsageError("expected an e-mail address")
    elif notice.kind == "sns":
        if notice.target not in options.sns_topics:
            raise UsageError("expected a topic that this installation may tell", hint="set LIKENESS_SNS_TOPICS")
    else:
        raise UsageError("expected a notice of webhook, mail or sns")


def check_webhook(url: str, *, private_webhooks: bool) -> tuple[str, str, int, str]:
    """Scheme, host, port and path of a URL that may be called.

    Raises:
        UsageError: malformed, another scheme, credentials, a fragment or a space in it, or an address literal that is
            private.
    """
    hint = "give an https URL of a public host"
    if _UNSENDABLE.search(url):
        raise UsageError("expected a webhook URL without spaces and control characters", hint=hint)
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # as the name will be looked up
    except ValueError:  # brackets without an address in them, a label of more than 63 characters
        raise UsageError("expected a webhook URL with a valid host", hint=hint) from None
    try:
        port = parts.port
    except ValueError:
        raise UsageError("expected a port from 1 to 65535 in the webhook's URL", hint=hint) from None
    schemes = ("https", "http") if private_webhooks else ("https",)
    if parts.scheme not in schemes or not parts.hostname or parts.username or parts.fragment or len(url) > 2000:
        raise UsageError("expected a webhook URL without credentials", hint=hint)
    try:
        literal = ipaddress.ip_address(parts.hostname)
    except ValueError:
        pass
    else:
        if not private_webhooks and not is_public(literal):
            raise UsageError("expected a public address for the webhook, got a private one", hint=hint)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), path


def send_webhook(message: Message, options: SendOptions) -> None:
    """POST the body once. Raises UsageError, StorageUnavailable, OSError; TimeoutError is one."""
    scheme, host, port, path = check_webhook(message.target, private_webhooks=options.private_webhooks)
    address = _address_of(host, port, private_webhooks=options.private_webhooks)
    body, timestamp = message.body.encode(), str(int(time.time()))
    headers = {
        "Content-Type": "application/json", "User-Agent": "Likeness", TIMESTAMP: timestamp, DELIVERY: message.id,
        SIGNATURE: signature(tenant_secret(options.webhook_secret, message.tenant), timestamp, body),
    }  # fmt: skip
    connection, ends_s = http.client.HTTPConnection(host, port), time.monotonic() + TIMEOUT_S
    stream = socket.create_connection(address, TIMEOUT_S)
    try:
        if scheme == "https":
            stream.settimeout(_left(ends_s))  # of the handshake as a whole
            stream = ssl.create_default_context().wrap_socket(stream, server_hostname=host)
        connection.sock = _Exchange(stream, ends_s)
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read(_MOST_ANSWER_BYTES)
        if not 200 <= answer.status < 300:
            raise StorageUnavailable(f"expected the webhook to answer 2xx, got {answer.status}")
    finally:
        stream.close()


class _Exchange(io.RawIOBase):
    """What http.client takes for a socket: reads and writes share one deadline, however many they are.

    A socket's own timeout begins anew with every byte. Sources: http.client's HTTPConnection and HTTPResponse, which
    call sendall, makefile and close.
    """

    def __init__(self, stream: socket.socket, ends_s: float) -> None:
        self._stream, self._ends_s = stream, ends_s

    def sendall(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[self._in_time().send(rest) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        return self._in_time().recv_into(buffer)

    def close(self) -> None:
        """The stream is closed by whoever opened it: an answer may be read after its connection's end."""

    def _in_time(self) -> socket.socket:
        self._stream.settimeout(_left(self._ends_s))
        return self._stream


def _left(ends_s: float) -> float:
    """Seconds until then. Raises TimeoutError."""
    if (left_s := ends_s - time.monotonic()) <= 0:
        raise TimeoutError("timed out")
    return left_s


def send_mail(message: Message, options: SendOptions) -> None:
    """One plain mail. Raises UsageError, OSError, smtplib.SMTPException."""
    if options.smtp is None:
        raise UsageError("expected a mail server, got none", hint="set LIKENESS_SMTP")
    server = urlsplit(options.smtp)
    said = json.loads(message.body)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Message-ID"] = options.mail_from, message.target, f"<{message.id}@likeness>"
    became = said.get("invocationStatus", said["eventName"])  # a test has no status
    mail["Subject"] = f"Likeness: {became}"
    reason = f"\n{said['failureReason']}\n" if "failureReason" in said else ""
    mail.set_content(f"Job {message.job}: {became}.\n{reason}\n{json.dumps(said, indent=2)}\n")
    kind = smtplib.SMTP_SSL if server.scheme == "smtps" else smtplib.SMTP
    with kind(server.hostname or "localhost", server.port or 0, timeout=TIMEOUT_S) as client:
        if server.username:
            if server.scheme != "smtps":
                client.starttls(context=ssl.create_default_context())
            client.login(server.username, server.password or "")
        client.send_message(mail)


def send_sns(message: Message, options: SendOptions) -> None:
    """Publish to a topic. Raises UsageError, or what boto3 raises."""
    if message.target not in options.sns_topics:
        raise UsageError("expected a topic that this installation may tell", hint="set LIKENESS_SNS_TOPICS")
    publish(message.target, message.body)


def publish(topic: str, body: str) -> None:
    """One SNS message; the region is the topic's. Tried once: the delivery log has its own patience."""
    import boto3
    from botocore.config import Config

    once = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 1})
    boto3.client("sns", region_name=topic.split(":")[3], config=once).publish(TopicArn=topic, Message=body)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one machine's on the public network; NAT64 (RFC 6052) can mean any IPv4 address."""
    return address.is_global and not address.is_multicast and address not in _NAT64


def _address_of(host: str, port: int, *, private_webhooks: bool) -> tuple[str, int]:
    """The first address of a host that may be called. Raises UsageError, OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, (address, *_rest) in found:
        if private_webhooks or is_public(ipaddress.ip_address(str(address).partition("%")[0])):
            return str(address), port
    raise UsageError("expected a public address for the webhook, got a private one")
