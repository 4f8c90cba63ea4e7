"""Whose key goes where, and files that keys are taken from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from partita import cluster
from partita.keys import find_keys, own_key, read_key
from partita.settings import Environment, read_environment
from storage.errors import EndpointRefused, UsageError
from tests.partita.test_bad_input import refused
from tests.partita.test_sessions import run
from tests.truth import Truth, numbers, serving

KEY = "sk-canary-0123456789"


def environment(**variables: str) -> Environment:
    return read_environment(variables)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"  {KEY} \r\nnot this line\n")
    path.chmod(0o600)
    return path


def test_a_variable_comes_before_a_file_and_ours_before_openais(file: Path) -> None:
    def chat(**variables: str) -> str | None:
        key = find_keys(environment(**variables)).chat
        return key.get_secret_value() if key else None

    assert chat() is None and chat(PARTITA_API_KEY=" \n") is None
    assert chat(OPENAI_API_KEY="o") == "o"
    assert chat(OPENAI_API_KEY="o", PARTITA_API_KEY_FILE=str(file)) == KEY
    assert chat(PARTITA_API_KEY="p", PARTITA_API_KEY_FILE="/nowhere") == "p"
    assert own_key(environment(OPENAI_API_KEY="o")) is None


def test_keys_are_in_no_repr(file: Path) -> None:
    found = environment(PARTITA_API_KEY=KEY, OPENAI_API_KEY=KEY, PARTITA_EMBED_API_KEY=KEY)
    assert KEY not in repr(found) + str(found) + found.model_dump_json() + repr(find_keys(found))
    assert KEY not in repr(read_key(file, "X"))


def test_a_link_may_lead_to_the_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    assert read_key(tmp_path / "link", "X").get_secret_value() == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_read_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(UsageError, match=f"^PARTITA_API_KEY_FILE: others can get at .*chmod 600 {file}`"):
        find_keys(environment(PARTITA_API_KEY_FILE=str(file)))


@pytest.mark.parametrize("written", [b"\xef\xbb\xbfsk-from-an-editor\r\n", b"  sk-from-an-editor \n# comment"])
def test_what_editors_put_around_a_key(file: Path, written: bytes) -> None:
    file.write_bytes(written)
    assert read_key(file, "PARTITA_API_KEY_FILE").get_secret_value() == "sk-from-an-editor"


def test_files_that_are_none(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)  # nobody writes to it: reading would wait for ever
    (tmp_path / "empty").touch(0o600)
    (tmp_path / "blank").write_text(f" \n{KEY}\n")
    (tmp_path / "long").write_text("k" * 100_000)
    for name in ("blank", "long"):
        (tmp_path / name).chmod(0o600)
    for name, says in {
        "pipe": "no regular file", ".": "directory", "nope": "No such file", "a\0b": "no path",
        "empty": "no key", "blank": "no key", "long": "no key",
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=says) as caught:
            read_key(tmp_path / name, "PARTITA_EMBED_API_KEY_FILE")
        assert KEY not in str(caught.value) and "PARTITA_EMBED_API_KEY_FILE" in str(caught.value)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(UsageError, match="another user's"):
        read_key(file, "X")


@pytest.mark.parametrize(
    ("chat", "embed", "shared"),
    [
        ("https://api.example/v1", "https://api.example:8443/other", True),
        ("http://127.0.0.1:1/v1", "http://localhost:2/v1", True),
        ("http://127.0.0.1:1/v1", "http://[::1]:2/v1", True),
        ("https://API.example./v1", "https://api.example/v2", True),
        ("https://api.example/v1", "https://embed.example/v1", False),
        ("https://api.example/v1", "https://sub.api.example/v1", False),
        ("https://api.example/v1", "https://api.example.evil/v1", False),
        ("https://10.0.0.1/v1", "https://127.0.0.1/v1", False),
        ("embedded", "http://127.0.0.1:2/v1", False),
        ("embedded", "https://api.example/v1", False),
        ("https://api.example/v1", "http://[::1", False),
    ],
)
def test_a_key_goes_to_the_host_that_it_was_given_for(chat: str, embed: str, shared: bool) -> None:
    keys = find_keys(environment(PARTITA_API_KEY="chat"))
    key, role = keys.of_embeddings(chat, embed)
    assert (key is not None) is shared and role.key == "PARTITA_EMBED_API_KEY"
    both = find_keys(environment(OPENAI_API_KEY="chat", PARTITA_EMBED_API_KEY="embed"))
    key, _ = both.of_embeddings(chat, embed)
    assert key is not None and key.get_secret_value() == "embed"
    key, role = both.of_embeddings(chat, chat)  # a second model at the chat endpoint
    assert key is not None and key.get_secret_value() == "chat" and role.key == "PARTITA_API_KEY"


def test_embeddings_from_elsewhere_have_a_key_of_their_own(cli, tmp_path, file) -> None:
    with serving(Truth(numbers(8, 2), key="chat-key-1")) as chat, serving(Truth(numbers(8, 2), key=KEY)) as embed:
        folder = chat.write(tmp_path / "c")
        words = [*run(folder, chat), "--embed-endpoint", embed.url]
        refused(cli(*words, PARTITA_API_KEY="chat-key-1"), 4, embed.url, "set PARTITA_EMBED_API_KEY")
        done = cli(*words, PARTITA_API_KEY="chat-key-1", PARTITA_EMBED_API_KEY_FILE=str(file))
        assert done.code == 0, done.err
        file.chmod(0o644)
        refused(cli(*words, PARTITA_API_KEY_FILE=str(file)), 2, "chmod 600")


@pytest.mark.parametrize("host", ["same", "other"])
def test_no_key_goes_to_another_host(tmp_path, monkeypatch, host) -> None:
    monkeypatch.setattr("partita.keys.same_host", lambda *_: host == "same")  # tests have one host only
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("PARTITA_API_KEY", raising=False)
    with serving(Truth(numbers(8, 2), key="none of yours")) as embed, serving(Truth(numbers(8, 2))) as chat:
        folder = chat.write(tmp_path / "c")
        db = f"sqlite:///{tmp_path}/p.db"
        with pytest.raises(EndpointRefused, match="set PARTITA_EMBED_API_KEY"):
            cluster(folder, "kind", endpoint=chat.url, embed_endpoint=embed.url, db=db)
    assert chat.sent_keys == {f"Bearer {KEY}"}
    assert embed.sent_keys == ({f"Bearer {KEY}"} if host == "same" else {""})
