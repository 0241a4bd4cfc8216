from __future__ import annotations

import pytest

from ccop_hub.addresses import credentials, hide_secrets, split_address, without_credentials
from ccop_hub.errors import UserError, one_line
from ccop_hub.redaction import redact, redact_parts
from ccop_hub.saved_settings import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@host.org/a.pth?token=secret#secret", "https://host.org/a.pth"),
        ("https://secret@host.org:8443/a b", "https://host.org:8443/a b"),
        ("at https://host.org/a.pth?sig=secret: try later", "at https://host.org/a.pth try later"),
        ("https://host.org/a.pth", "https://host.org/a.pth"),
        ("https://[secret/a", "https://..."),
        ("two http://a:secret@x/ and HTTPS://b:secret@y/z?secret", "two http://x/ and https://y/z"),
        ("postgresql+psycopg2://me:secret@host/db refused", "postgresql+psycopg2://host/db refused"),
        ("weird://secret@host/a?secret", "weird://host/a"),
        ("file:///a?b#c", "file:///a?b#c"),
        ("a token hf_AbCdEfGhIjKlMnSECRET here", "a token hf_... here"),
        ("resnet50.mocov2_in1k_800ep", "resnet50.mocov2_in1k_800ep"),
        ("hf-hub:org/name@main", "hf-hub:org/name@main"),
    ],
)
def test_addresses_are_shown_without_secrets(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(redact(text)) == redact(text)


def test_secrets_are_removed_before_a_text_is_truncated() -> None:
    for length in range(200):
        assert "sec" not in one_line(f"{'x' * length} https://me:secret-{'y' * 90}@host/a", 160)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("http://host/?token=secret", "no url: /api?token=secret"),
        ("http://me:s%65cret@host/", "s%65cret or secret is wrong for me"),
        ("pg://secret@host/#secret", "unknown: secret"),
    ],
)
def test_parts_of_an_address_are_removed_where_they_are_quoted(address: str, text: str) -> None:
    shown = redact_parts(text, address)
    assert "secret" not in shown
    assert "..." in shown


def test_saved_settings_hold_no_secret() -> None:
    assert plain({"weights": ["https://me:secret@host/a?token=secret"]}) == {"weights": ["https://host/a"]}


@pytest.mark.parametrize(
    "address",
    [
        "http://host/a.pth?secret",
        "ftp://me:secret@host/a",
        "https://",
        "https://?secret",
        "https://host:port/a?secret",
        "https://[host/a?secret",
        "https://host/a b?secret",
        "https://host/\n?secret",
        "https://höst/a?secret",
    ],
)
def test_addresses_that_are_refused(address: str) -> None:
    with pytest.raises(UserError) as raised:
        split_address(address)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_credentials_go_into_a_header() -> None:
    parts = split_address("https://me:p%40ss@host:8443/a.pth?x=1#sha256=0")
    assert credentials(parts) == "Basic bWU6cEBzcw=="
    assert without_credentials(parts) == "https://host:8443/a.pth?x=1"
    assert credentials(split_address("https://host/a")) is None


def test_secrets_that_a_server_repeats_are_removed() -> None:
    address = "https://alice-name:p%40ssword@host/a.pth?token=abcdefgh&part=1#fragment"
    text = "alice-name gave p@ssword, p%40ssword, abcdefgh and fragment to part 1 of host/a.pth"
    assert hide_secrets(text, address) == "... gave ..., ..., ... and ... to part 1 of host/a.pth"
    assert hide_secrets(text, "https://[") == text


def test_an_error_holds_no_secret_and_is_one_line() -> None:
    assert str(UserError("https://me:secret@host/a?token=secret\nis\x1b[31m gone")) == r"https://host/a is\x1b[31m gone"
