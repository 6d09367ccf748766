"""Sending a message: an object, a signed webhook, a mail, an SNS topic. Each raises if the recipient did not accept it.

Webhooks are signed as standardwebhooks.com specifies: HMAC-SHA256 over '<id>.<timestamp>.<body>', so that none of them
can be changed and an old message can be refused. `net.public_post` sends them.
"""

import base64
import hashlib
import hmac
import json
import re
import smtplib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage

from ..errors import UsageError
from ..jobs.job import Notice
from ..jobs.locations import Locations
from ..jobs.messages import Message
from ..net.public_post import may_be_public, post
from ..net.urls import MAIL_SCHEMES, WebUrl, web_url
from .notifier import Sender

TIMEOUT_S = 10.0  # of a webhook, from connecting to the end of the answer
_MAIL_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,200}")


@dataclass(frozen=True)
class SendOptions:
    """The operator's settings for messages.

    Args:
        webhook_secret: of this installation; each tenant's own is derived from it, see `tenant_secret`.
        private_webhooks: addresses of this machine and of private networks may be called.
        smtp: `smtp://user:password@host:port` or `smtps://...`; None = no mail.
        sns_topics: ARNs that jobs may notify.
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
    """The secret with which a tenant verifies its webhooks; other tenants have other secrets."""
    key = hmac.new(secret, f"webhooks of {tenant}".encode(), hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(key).decode()


def signature(secret: str, id: str, timestamp: str, body: str) -> str:
    """The value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def check_notice(notice: Notice, options: SendOptions) -> None:
    """Check a recipient when the job is submitted, not when it has ended.

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
            raise UsageError("expected an SNS topic of this installation, got another", hint="set LIKENESS_SNS_TOPICS")
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
    if not private_webhooks and not may_be_public(url.host):
        raise UsageError("expected a public address for the webhook, got a private one", hint=hint)
    return url


def send_webhook(message: Message, options: SendOptions) -> None:
    """POST the body once. Raises UsageError, StorageUnavailable, OSError; TimeoutError is one."""
    url = check_webhook(message.target, private_webhooks=options.private_webhooks)
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json", "User-Agent": "Likeness",
        "webhook-id": message.id, "webhook-timestamp": timestamp,
        "webhook-signature": signature(
            tenant_secret(options.webhook_secret, message.tenant), message.id, timestamp, message.body
        ),
    }  # fmt: skip
    post(url, message.body, headers, private=options.private_webhooks, timeout_s=TIMEOUT_S)


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
        raise UsageError("expected an SNS topic of this installation, got another", hint="set LIKENESS_SNS_TOPICS")
    publish(message.target, message.body)


def publish(topic: str, body: str) -> None:
    """One SNS message; the region is the topic's. Tried once: the delivery log has its own patience."""
    import boto3
    from botocore.config import Config

    once = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 1})
    boto3.client("sns", region_name=topic.split(":")[3], config=once).publish(TopicArn=topic, Message=body)
