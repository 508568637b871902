"""Secrets, in every form in which a text may have them, and texts that have none."""

import pytest

from pipeline.redaction import has_credentials, redacted, redacted_place, redacted_tree

S = "hunter2s3cr3t"

PLACES = {
    f"https://user:{S}@host/a.tar": "https://…@host/a.tar",
    f"https://user:{S}@host/*.tar": "https://…@host/*.tar",
    f"https://{S}@host/a.tar": "https://…@host/a.tar",
    f"https://user:a/{S}@host/a.tar": "https://…@host/a.tar",
    f"https://user:a@{S}@host/a.tar": "https://…@host/a.tar",
    f"https://user:a {S}@host/a.tar": "https://…@host/a.tar",
    f"https://user:'{S}\"@host/a.tar": "https://…@host/a.tar",
    f"https:/user:{S}@host/a.tar": "https:/…@host/a.tar",  # as `Path` has it
    f"HF://user:{S}@datasets/a": "HF://…@datasets/a",
    f"s3://key:{S}@bucket/{{0..3}}.tar": "s3://…@bucket/{0..3}.tar",
    f"https://host/a.tar?X-Amz-Signature={S}&X-Amz-Expires=9": "https://host/a.tar?…",
    f"https://host/a.tar?{S}": "https://host/a.tar?…",
    f"https://host/a.tar#{S}": "https://host/a.tar#…",
    f"https://host/a.tar#{S}?x": "https://host/a.tar#…",
    f"https://host/#{S}": "https://host/#…",
    f"hf://datasets/a/b/*.parquet?token={S}": "hf://datasets/a/b/*.parquet?…",
    f"s3://bucket/a.tar?{S}": "s3://bucket/a.tar?…",
    f"s3://bucket/a?{S}": "s3://bucket/a?…",
    f"s3://bucket/a.tar?versionId={S}": "s3://bucket/a.tar?…",
    f"s3://bucket/a.tar#{S}": "s3://bucket/a.tar#…",
    f"abfs://user:{S}@account/a.tar": "abfs://…@account/a.tar",
    f"az://container/{{a.tar?sig={S}": "az://container/{a.tar?…",
    f"pipe:curl -H 'Authorization: Bearer {S}' https://host/a.tar": "pipe:…",
    f" pipe: curl {S}\nsecond line {S}": "pipe:…",
}
"""Values of a configuration, as they are shown."""

TEXTS = {
    f"https://host/a.tar?sig={S}: 403 Forbidden": "https://host/a.tar?… 403 Forbidden",
    f"GET (https://host/a.tar?X-Amz-Signature={S}) failed": "GET (https://host/a.tar?… failed",
    f"['https://u:{S}@h/a.tar', 'b.tar']": "['https://…@h/a.tar', 'b.tar']",
    f"got 'pipe:curl {S} | tar', or nothing\nnext": "got 'pipe:…\nnext",
    f"Authorization: Basic {S}": "Authorization: Basic …",
    f"header Bearer {S} is wrong": "header Bearer … is wrong",
    f"aws_secret_access_key={S}, region=x": "aws_secret_access_key=…, region=x",
    f"password={S}": "password=…",
    f"hf_{'a1' * 17} is no token of the hub": "… is no token of the hub",
    "AKIAIOSFODNN7EXAMPLE: unknown": "…: unknown",
}

HARMLESS = [
    "data/train-{0000..0146}.tar",
    "data/part-?.tar",
    "s3://bucket/part-?.tar",
    "s3://bucket/2024-0?/a*.tar",
    "s3://bucket/folder@2x/a.tar",
    "abfss://container@account.dfs.core.windows.net/a.tar",
    "http://localhost:9000/bucket/a@2x.tar",
    "http://localhost:9000/bucket/*.tar",
    "file:///data/a?b#c.tar",
    "s3://bucket/outer.tar#inner.tar: cut off",
    "s3://bucket/train/#n0144/n0144_1: 3 files",
    "https://peps.python.org/pep-0008/, see there",
    "tokens=5, source.key=id, token 3 is outside the codebook",
    "the command of a pipe: source runs only with source.allow_pipe=true",
    "pipe/0123456789abcdef/a.tar stays pending: the command ended with exit status 3",
    "größer als 日本",
]


@pytest.fixture(autouse=True)
def few_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PASSWORD", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("place", PLACES)
def test_a_place_is_shown_without_its_secret(place: str) -> None:
    assert redacted_place(place) == PLACES[place]
    assert redacted_place(PLACES[place]) == PLACES[place]
    assert redacted_tree({"a": [place], "b": {"c": place}}) == {"a": [PLACES[place]], "b": {"c": PLACES[place]}}
    assert S not in redacted(f"source.shards: {PLACES[place]!r}: matches no file")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_shown_without_the_secrets_in_it(text: str) -> None:
    assert redacted(text) == TEXTS[text]
    assert redacted(TEXTS[text]) == TEXTS[text]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [("HF_TOKEN", True), ("DB_PASS", True), ("apikey", True), ("MYTOKEN", True), ("PWD", False), ("DATA", False)],
)
def test_values_of_variables_that_are_called_secrets(
    monkeypatch: pytest.MonkeyPatch, name: str, is_secret: bool
) -> None:
    monkeypatch.setenv(name, "value/of+it")
    shown = f"${{{name}}}" if is_secret else "value/of+it"
    assert redacted("s3://bucket/value/of+it/a.tar") == f"s3://bucket/{shown}/a.tar"
    assert redacted_tree(["value/of+it"]) == [shown]
    assert ("value%2Fof%2Bit" in redacted("q is value%2Fof%2Bit")) is not is_secret
    monkeypatch.setenv(name, "short")
    assert redacted("a short text") == "a short text"


def test_only_urls_of_the_web_have_queries_without_a_sign() -> None:
    refused = [place for place in PLACES if has_credentials(place)]
    passed = {place for place in PLACES if "://" in place and "pipe:" not in place} - set(refused)
    assert all(place.startswith("s3://bucket/a") for place in passed)  # a wildcard, or a name with #
    assert not any(map(has_credentials, HARMLESS))


def test_a_long_url_is_not_looked_at() -> None:
    assert redacted(f"s3://bucket/{'?.' * 100_000} and more") == "s3://… and more"
