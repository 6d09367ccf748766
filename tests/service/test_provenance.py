"""Every picture says that it was made; with a key configured it says so in content credentials that verify."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from likeness.cli import app
from likeness.config import Settings
from likeness.errors import SettingsError, UsageError
from likeness.service import build
from likeness.service.image_files import AI_GENERATED, encode
from likeness.service.provenance import signer, unsigned
from likeness.types import JPEG, PNG, GeneratedImage, ImageRequest, blend_of

PICTURE = GeneratedImage(
    ImageRequest("a 🧑 in the snow", blend_of("anna"), seed=7),
    np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "a" * 64, "b" * 64, 1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def pem_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A chain of a test authority and a signing certificate, and the key: self-made and untrusted."""
    pytest.importorskip("c2pa", reason="content credentials need c2pa-python")
    x509 = pytest.importorskip("cryptography.x509", reason="the test's certificates are made with cryptography")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(common: str) -> Any:
        oid = x509.NameOID
        return x509.Name(
            [x509.NameAttribute(oid.COMMON_NAME, common), x509.NameAttribute(oid.ORGANIZATION_NAME, "Test")]
        )

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)

    def certificate(subject: str, public: Any, is_authority: bool) -> Any:
        usage = {
            "digital_signature": not is_authority, "key_cert_sign": is_authority, "crl_sign": is_authority,
            "content_commitment": False, "key_encipherment": False, "data_encipherment": False, "key_agreement": False,
            "encipher_only": False, "decipher_only": False,
        }  # fmt: skip
        builder = (
            x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("Root")).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )  # fmt: skip
        if not is_authority:
            purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=False)
        return builder.sign(root_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    chain = b"".join(
        one.public_bytes(pem)
        for one in (certificate("Signer", key.public_key(), False), certificate("Root", root_key.public_key(), True))
    )
    folder = tmp_path_factory.mktemp("pem")
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "chain.pem"), str(folder / "key.pem")


@pytest.mark.parametrize("media_type", [PNG, JPEG])
def test_plain_metadata_is_always_there(media_type: str) -> None:
    content = encode(PICTURE, media_type)
    picture = Image.open(io.BytesIO(content))
    assert picture.get_format_mimetype() == media_type
    assert AI_GENERATED.encode() in content  # as XMP, for readers without C2PA
    said = picture.text["Comment"] if media_type == PNG else picture.info["comment"].decode()  # type: ignore[attr-defined]
    assert said == "AI-generated"
    assert encode(PICTURE, media_type) == content
    with pytest.raises(UsageError):
        encode(PICTURE, "image/gif")


def test_a_png_holds_its_recipe_and_a_jpeg_does_not(tmp_path: Path) -> None:
    png = Image.open(io.BytesIO(encode(PICTURE, PNG))).text  # type: ignore[attr-defined]
    assert (png["prompt"], png["seed"], png["adapter_sha256"]) == ("a 🧑 in the snow", "7", "b" * 64)
    assert b"snow" not in encode(PICTURE, JPEG)


@pytest.mark.parametrize("media_type", [PNG, JPEG])
def test_content_credentials_verify_and_say_what_made_the_picture(pem_files: tuple[str, str], media_type: str) -> None:
    import c2pa

    plain = encode(PICTURE, media_type)
    signed = signer(*pem_files)(plain, media_type)
    with c2pa.Reader(media_type, io.BytesIO(signed)) as reader:
        document = json.loads(reader.json())
    manifest = document["manifests"][document["active_manifest"]]
    (actions,) = [one for one in manifest["assertions"] if one["label"].startswith("c2pa.actions")]
    assert actions["data"]["actions"][0]["action"] == "c2pa.created"
    assert actions["data"]["actions"][0]["digitalSourceType"] == AI_GENERATED
    assert manifest["claim_generator_info"][0]["name"] == "Likeness"
    failures = {status["code"] for status in document.get("validation_status", [])}
    assert failures <= {"signingCredential.untrusted"}  # the test's authority is on no trust list
    before, after = (np.asarray(Image.open(io.BytesIO(content))) for content in (plain, signed))
    np.testing.assert_array_equal(before, after)
    place = len(signed) - 300  # in the middle of the pixels
    tampered = signed[:place] + bytes([signed[place] ^ 1]) + signed[place + 1 :]
    with c2pa.Reader(media_type, io.BytesIO(tampered)) as reader:
        codes = {status["code"] for status in json.loads(reader.json()).get("validation_status", [])}
    assert "assertion.dataHash.mismatch" in codes


def test_an_installation_signs_where_it_is_told_to(pem_files: tuple[str, str], tmp_path: Path) -> None:
    certificate, key = pem_files
    installation = build(Settings(home=tmp_path, c2pa_certificate=certificate, c2pa_key=key))
    assert b"c2pa" in installation.encode(PICTURE, PNG)
    assert b"c2pa" not in build(Settings(home=tmp_path)).encode(PICTURE, PNG)


def test_the_command_line_signs_too(
    pem_files: tuple[str, str], tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIKENESS_C2PA_CERTIFICATE", pem_files[0])
    monkeypatch.setenv("LIKENESS_C2PA_KEY", pem_files[1])
    words = ["generate", "base", "x", "--steps", "1", "--base", str(tiny_base_folder), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["--home", str(tmp_path / "home"), *words])
    assert result.exit_code == 0, result.stderr
    (path,) = (tmp_path / "out").iterdir()
    assert b"c2pa" in path.read_bytes()


def test_half_a_pair_and_unusable_files_are_found_at_the_start(pem_files: tuple[str, str], tmp_path: Path) -> None:
    certificate, key = pem_files
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    assert signer(None, None) is unsigned
    for pair in ((certificate, None), (None, key), (certificate, str(nonsense)), (str(tmp_path / "no"), key)):
        with pytest.raises(SettingsError):
            signer(*pair)
