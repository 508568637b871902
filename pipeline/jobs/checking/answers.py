"""What a failed request says: of the server, of the key, of the bucket, or of what the key may do."""

from collections.abc import Iterator

from pipeline.jobs.checking.lines import NoAnswer

REACH = ("server", "credentials", "bucket", "LIST")
"""What a first listing finds out, one after the other."""

_OF_SERVERS = ("no answer", "does not answer")
_OF_CREDENTIALS = (
    "no credentials",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "HF_TOKEN",
)
_OF_BUCKETS = (
    "NoSuchBucket",
    "ContainerNotFound",
    "InvalidBucketName",
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",  # of another region
)


def blamed(error: Exception) -> int:
    """Which of REACH an error is about; where nothing tells, the last."""
    if isinstance(error, NoAnswer):
        return 0
    said = " ".join(map(str, _chain(error)))
    for at, words in enumerate((_OF_SERVERS, _OF_CREDENTIALS, _OF_BUCKETS)):
        if any(word in said for word in words):
            return at
    return len(REACH) - 1


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
