"""Sending a message: an object, a signed webhook, a mail, an SNS topic. Each raises where it was not taken.

Webhooks are signed as standardwebhooks.com specifies: HMAC-SHA256 over '<id>.<timestamp>.<body>', so that none of them
can be changed and an old message can be refused. A webhook's host is looked up once, its address is checked, and that
address is connected to, so that the name cannot mean another one in between; redirects are not followed (CWE-918,
server-side request forgery). The whole exchange has one deadline, however slowly the answer comes (CWE-400).
"""

import asyncio
import base64
import hashlib
import hmac
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

import httpx2

from ..errors import StorageUnavailable, UsageError
from ..urls import MAIL_SCHEMES, WebUrl, web_url
from .job import Notice
from .locations import Locations
from .messages import Message
from .notifier import Sender

TIMEOUT_S = 10.0  # of a webhook, from connecting to the end of the answer
_MOST_ANSWER_BYTES = 1 << 16
_MAIL_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,200}")
# IPv6 networks whose addresses mean an IPv4 address, possibly a private one: IPv4-compatible and -mapped, NAT64
# (RFC 6052 and 8215), Teredo, 6to4
_IPV4_INSIDE = [
    ipaddress.ip_network(text)
    for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")
]


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
    key = hmac.new(secret, f"webhooks of {tenant}".encode(), hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(key).decode()


def signature(secret: str, id: str, timestamp: str, body: str) -> str:
    """The value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def check_notice(notice: Notice, options: SendOptions) -> None:
    """Refuse an address that cannot be told, when the job is ordered and not when it is over.

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


def check_webhook(text: str, *, private_webhooks: bool) -> WebUrl:
    """A URL that may be called.

    Raises:
        UsageError: malformed, another scheme, credentials in it, or this machine's name or a private address.
    """
    url = web_url(text, schemes=("https", "http") if private_webhooks else ("https",), what="the webhook")
    hint = "give an https URL of a public host"
    if url.user is not None:
        raise UsageError("expected a webhook URL without credentials", hint=hint)
    if not private_webhooks and not _may_be_public(url.host):
        raise UsageError("expected a public address for the webhook, got a private one", hint=hint)
    return url


def send_webhook(message: Message, options: SendOptions) -> None:
    """POST the body once. Raises UsageError, StorageUnavailable, OSError; TimeoutError is one."""
    asyncio.run(_post(message, options))


async def _post(message: Message, options: SendOptions) -> None:
    url = check_webhook(message.target, private_webhooks=options.private_webhooks)
    body, timestamp = message.body, str(int(time.time()))
    secret = tenant_secret(options.webhook_secret, message.tenant)
    headers = {
        "Host": url.authority, "Content-Type": "application/json", "User-Agent": "Likeness",
        "webhook-id": message.id, "webhook-timestamp": timestamp,
        "webhook-signature": signature(secret, message.id, timestamp, body),
    }  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT_S):
            address = await _address_of(url.host, url.port, private_webhooks=options.private_webhooks)
            async with (
                httpx2.AsyncClient(verify=ssl.create_default_context(), trust_env=False, timeout=None) as client,
                client.stream(
                    "POST", f"{url.scheme}://{address}:{url.port}{url.target}", content=body, headers=headers,
                    extensions={"sni_hostname": url.host},  # the certificate is the host's, not the address's
                ) as answer,
            ):  # fmt: skip
                read = 0
                async for part in answer.aiter_raw():
                    if (read := read + len(part)) > _MOST_ANSWER_BYTES:
                        break
    except httpx2.HTTPError as error:
        raise OSError(f"the webhook was not reached: {type(error).__name__}") from error
    if not answer.is_success:
        raise StorageUnavailable(f"expected the webhook to answer 2xx, got {answer.status_code}")


def send_mail(message: Message, options: SendOptions) -> None:
    """One plain mail. Raises UsageError, OSError, smtplib.SMTPException."""
    if options.smtp is None:
        raise UsageError("expected a mail server, got none", hint="set LIKENESS_SMTP")
    server = web_url(options.smtp, schemes=MAIL_SCHEMES, what="LIKENESS_SMTP")
    said = json.loads(message.body)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Message-ID"] = options.mail_from, message.target, f"<{message.id}@likeness>"
    became = said.get("invocationStatus", said["eventName"])  # a test has no status
    mail["Subject"] = f"Likeness: {became}"
    reason = f"\n{said['failureReason']}\n" if "failureReason" in said else ""
    mail.set_content(f"Job {message.job}: {became}.\n{reason}\n{json.dumps(said, indent=2)}\n")
    kind = smtplib.SMTP_SSL if server.scheme == "smtps" else smtplib.SMTP
    with kind(server.host, server.port, timeout=TIMEOUT_S) as client:
        if server.user:
            if server.scheme != "smtps":
                client.starttls(context=ssl.create_default_context())
            client.login(server.user, server.password or "")
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
    """Whether an address is one machine's on the public network."""
    return address.is_global and not address.is_multicast and not any(address in inside for inside in _IPV4_INSIDE)


def _may_be_public(host: str) -> bool:
    """False for private address literals and names of this machine. Other names are judged when they are looked up."""
    try:
        return is_public(ipaddress.ip_address(host))
    except ValueError:
        return host.rpartition(".")[2] != "localhost"


async def _address_of(host: str, port: int, *, private_webhooks: bool) -> str:
    """The first address of a host that may be called, as it stands in a URL. Raises UsageError, OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, (address, *_rest) in found:
        literal = ipaddress.ip_address(str(address).partition("%")[0])
        if private_webhooks or is_public(literal):
            return f"[{literal}]" if literal.version == 6 else str(literal)
    raise UsageError("expected a public address for the webhook, got a private one")
