"""The policy of docs/object-stores.md: it allows all that jobs ask of AWS, and nothing that none of them asks for."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from fixtures_s3 import BUCKET, DENIED, S3, Asked, Faults, Proxy
from fixtures_store import Job
from support import ROOT

from pipeline.files import files_at
from pipeline.jobs import clean
from pipeline.jobs.checking import job as checking
from pipeline.jobs.status import job as status
from pipeline.jobs.tokenizing import job as tokenizing
from pipeline.jobs.verifying.commits import check_commits
from pipeline.jobs.verifying.contents import check_contents
from pipeline.loader import TokenLoader
from pipeline.storage import Storage
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_s3", "fixtures_remote"]

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
ACTIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "PutObject If-None-Match": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjects": "s3:ListBucket",
}

Right = tuple[str, str]
"""An action, and the pattern of what it is allowed on: of a key, or of the prefix of a list."""


def rights_of_the_policy() -> Iterator[Right]:
    page = (ROOT / "docs/object-stores.md").read_text()
    block = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert block is not None
    for statement in json.loads(block[1])["Statement"]:
        assert statement["Effect"] == "Allow"
        bucket, _, keys = statement["Resource"].removeprefix("arn:aws:s3:::").partition("/")
        assert bucket == "bucket"
        for action in statement["Action"]:
            for pattern in [keys] if keys else statement["Condition"]["StringLike"]["s3:prefix"]:
                yield action, pattern


def needed(asked: Asked, store: str) -> list[tuple[str, str]]:
    """Action and key or prefix, as if the source were in `images` and the store in `tokens`."""
    url = urlsplit(asked.path)
    key = parse_qs(url.query).get("prefix", [""])[0] if asked.operation == "ListObjects" else unquote(url.path)
    key = key.removeprefix(f"/{BUCKET}/")
    for there, here in (("source/", "images/"), (f"{store}/", "tokens/")):
        if key.startswith(there):
            key = here + key.removeprefix(there)
    # The names of several objects that are deleted stand in the body.
    return [(ACTIONS[asked.operation], "tokens/all" if asked.operation == "DeleteObjects" else key)]


def test_it_allows_what_is_asked_for_and_nothing_more(remote: Job, s3: S3, proxy: Proxy) -> None:
    storage = Storage(endpoint=proxy.s3.environment["AWS_ENDPOINT_URL"])
    reached = f"{{endpoint: '{storage.endpoint}'}}"
    config = remote.config(f"source.storage={reached}", f"tokenize.storage={reached}")
    assert not checking.run(config).failed
    assert tokenizing.run(config, show_progress=False).complete
    assert status.run(config).complete
    verified = check_commits(config)
    check_contents(config, verified, show_progress=False)
    assert verified.problems == []
    store = config.tokenize.store
    files = files_at(store, storage)
    files.put(f"tokens.zarr/parts/{files.list('commits')[0].removesuffix('.json')}.00000000/zarr.json", b"{}")
    assert len(clean.run(config).deleted) == 1
    assert len([*TokenLoader(TokenStore(store, storage=storage), batch_size=10)])
    files.put("large", bytes(6 << 20))
    proxy.faults = Faults(refuse=1.0, answer=DENIED, operation="UploadPart")
    with pytest.raises(PermissionError):
        files.put("large", bytes(6 << 20))

    rights, used = set(rights_of_the_policy()), set[Right]()
    for asked in proxy.asked:
        for action, key in needed(asked, store.rpartition("/")[2]):
            allowing = {right for right in rights if right[0] == action and fnmatchcase(key, right[1])}
            assert allowing, f"{asked.operation} {asked.path} is not allowed"
            used |= allowing
    assert used == rights
