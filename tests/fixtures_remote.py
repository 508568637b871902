"""Jobs whose source and store are objects.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

from pathlib import Path

import pytest
import yaml
from fixtures_s3 import BUCKET, S3
from fixtures_store import COLLECTION, Job, make_job


@pytest.fixture(scope="session")
def uploaded(collection: Path, s3_server: S3) -> str:
    """The collection as objects; their URL."""
    for path in COLLECTION:
        s3_server.request(
            "PUT", f"/{BUCKET}/source/{path}", (collection / path).read_bytes(), {"x-amz-acl": "public-read"}
        )
    return f"s3://{BUCKET}/source"


@pytest.fixture
def remote(uploaded: str, bucket_url: str, tokenizer_folder: Path, tmp_path: Path) -> Job:
    """A job whose source and store are objects."""
    job = make_job(tmp_path / "job", tmp_path, tokenizer_folder)
    return reconfigured(job, uploaded, bucket_url)


def reconfigured(job: Job, source: str, store: str) -> Job:
    """The same job with the collection and the store elsewhere."""
    tree = yaml.safe_load(job.file.read_text())
    tree["source"].update(shards=[f"{source}/train-*.tar", f"{source}/more/train-*.tar"], base=source)
    tree["tokenize"].update(store=store, claim_timeout=3)
    job.file.write_text(yaml.safe_dump(tree))
    return job
