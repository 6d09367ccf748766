"""Settings from the environment and the home's file: typed, known by name, never guessed."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likeness.config import FILE_NAME, PREFIX, Settings, settings_from
from likeness.errors import SettingsError

SETTINGS_PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def written(home: Path, text: str) -> dict[str, str]:
    """An environment whose home has this settings file."""
    (home / FILE_NAME).write_text(text)
    return {"LIKENESS_HOME": str(home)}


def test_nothing_said_means_the_defaults_in_the_users_own_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings_from({"PATH": "whatever"}) == Settings(home=tmp_path / ".likeness")


def test_the_environment_is_typed(tmp_path: Path) -> None:
    environment = {
        "LIKENESS_HOME": str(tmp_path), "LIKENESS_BASE": "some/base", "LIKENESS_REVISION": "abc", "LIKENESS_SLOTS": "3",
        "LIKENESS_MAX_BATCH": "2",
    }  # fmt: skip
    assert settings_from(environment) == Settings(tmp_path, "some/base", "abc", slots=3, max_batch=2)


def test_the_file_goes_before_the_defaults_and_the_environment_before_the_file(tmp_path: Path) -> None:
    environment = written(tmp_path, 'base = "some/base"\nrevision = "abc"\nslots = 5\n')
    assert settings_from(environment | {"LIKENESS_SLOTS": "3"}) == Settings(tmp_path, "some/base", "abc", slots=3)


def test_a_home_that_is_said_outright_goes_before_the_environment_and_brings_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    written(tmp_path / "other", "slots = 4")
    environment = written(tmp_path, "slots = 5")
    assert settings_from(environment, tmp_path / "other") == Settings(tmp_path / "other", slots=4)


def test_unknown_names_are_refused_with_the_known_ones_listed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the environment: LIKENESS_SLOT \(known") as refused:
        settings_from({"LIKENESS_SLOT": "3"})
    assert all(PREFIX + field.name.upper() in refused.value.hint for field in fields(Settings))
    with pytest.raises(SettingsError, match=r"likeness\.toml: bass") as refused:
        settings_from(written(tmp_path, 'bass = "built-in"'))
    assert "base" in refused.value.hint


def test_the_file_cannot_move_the_home_that_it_lies_in(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"likeness\.toml: home"):
        settings_from(written(tmp_path, 'home = "elsewhere"'))


@pytest.mark.parametrize("text", ["three", "", "1", "-4", "2.5", "٣", "9" * 5000])
def test_a_number_that_is_none_names_the_variable_and_what_it_should_be(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LIKENESS_SLOTS to be a whole number of at least 2") as refused:
        settings_from({"LIKENESS_HOME": str(tmp_path), "LIKENESS_SLOTS": text})
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("slots = true", "slots in likeness.toml to be a whole number of at least 2, got bool"),
        ('slots = "4"', "slots in likeness.toml to be a whole number of at least 2, got str"),
        ("max_batch = 0", "max_batch in likeness.toml to be a whole number of at least 1, got 0"),
        ("base = 3", "base in likeness.toml to be text, got int"),
        ('base = ""', "base in likeness.toml to be text, got an empty text"),
        ("base = ", "expected likeness.toml to be TOML"),
    ],
)
def test_a_wrong_value_in_the_file_names_key_and_type(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_from(written(tmp_path, line))


def test_a_file_in_place_of_the_home_folder_is_refused_with_the_option(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.touch()
    with pytest.raises(SettingsError, match="in the home folder, got: Not a directory") as refused:
        settings_from({}, home=home)
    assert "--home" in refused.value.hint


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"base = \xff\xfe")
    with pytest.raises(SettingsError, match=r"likeness\.toml to be UTF-8"):
        settings_from({"LIKENESS_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SMTP", "localhost"), ("SMTP", "http://localhost"), ("SMTP", "smtp://"), ("SMTP", "smtp://["),
        ("SMTP", "smtp://h:0"), ("SMTP", "smtp://h:99999"), ("SMTP", "smtp://u:p@w@h"), ("SMTP", "smtps://h#x"),
        ("MAIL_FROM", "us"), ("MAIL_FROM", "us@example.com\nBcc: x@y"), ("SNS_TOPICS", "jobs"),
        ("SNS_SUCCESS_TOPIC", "arn:aws:sns:eu-west-1:12:jobs"),
        ("SNS_ERROR_TOPIC", "arn:aws:sqs:eu-west-1:123456789012:x"),
    ],
)  # fmt: skip
def test_where_messages_go_is_checked_at_the_start(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"LIKENESS_{name}"):
        settings_from({"LIKENESS_HOME": str(tmp_path), f"LIKENESS_{name}": text})


def test_compile_is_on_or_off() -> None:
    assert settings_from({"LIKENESS_COMPILE": "on"}).compile == "on"
    with pytest.raises(SettingsError, match="expected LIKENESS_COMPILE to be on or off, got another text"):
        settings_from({"LIKENESS_COMPILE": "yes"})


def test_topics_and_a_mail_server_with_a_password(tmp_path: Path) -> None:
    topic = "arn:aws:sns:eu-west-1:123456789012:jobs"
    said = {"LIKENESS_SMTP": "smtps://us%40example.com:p%40ss@mail.example:465", "LIKENESS_MAIL_FROM": "us@example.com"}
    topics = {"LIKENESS_SNS_TOPICS": f"{topic}, {topic}2", "LIKENESS_SNS_ERROR_TOPIC": topic}
    found = settings_from({"LIKENESS_HOME": str(tmp_path), **said, **topics})
    assert (found.smtp, found.sns_topics) == (said["LIKENESS_SMTP"], topics["LIKENESS_SNS_TOPICS"])


def test_an_empty_home_is_not_the_working_folder() -> None:
    with pytest.raises(SettingsError, match="LIKENESS_HOME to be text, got an empty text"):
        settings_from({"LIKENESS_HOME": ""})


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda key: not key.isascii() or not key.isprintable()))
def test_a_hostile_name_is_refused_but_not_repeated(key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings_from({f"LIKENESS_{key}": "x"})
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


def test_what_may_hold_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Settings(catalog="postgresql+psycopg://likeness:secret@host/likeness"))


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().slots = 3  # type: ignore[misc]


def test_the_settings_page_lists_every_setting() -> None:
    text = SETTINGS_PAGE.read_text()
    assert [field.name for field in fields(Settings) if f"`{PREFIX}{field.name.upper()}`" not in text] == []


def test_a_byte_order_mark_before_the_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xef\xbb\xbfslots = 5\r\n")
    assert settings_from({}, tmp_path).slots == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"slots = 5\nbase = secret\n", "got an error at line 2, column 8"),
        (b"\xef\xbb\xbf\nslots = = 5", "got an error at line 2, column 9"),
        (b"[secret", "got an error at end of document"),
        (b'slots = 5\nbase = "\xff secret"', "to be UTF-8, got other bytes in line 2"),
        ("slots = 5".encode("utf-16"), "to be UTF-8, got other bytes in line 1"),  # PowerShell 5's redirection
        (b"slots = 5\nslots = 6\n", "got an error at line 2, column 10"),
        (b"x = " + b"[" * 100_000, "to be TOML, got an error"),
    ],
)
def test_an_error_in_the_file_says_where_it_is_and_what_to_do(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        settings_from({}, tmp_path)
    assert said in refused.value.message and refused.value.hint
    assert "secret" not in str(refused.value)
