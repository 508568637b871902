"""What an object store said when it did not do as asked: its own words, and what helps."""

import errno
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_XML = re.compile(r"<(Code|Message)>(.*?)</\1>", re.DOTALL)
_STATUS = re.compile(r"status code: (\d{3})")
_REQUEST = re.compile(r"Error performing ([A-Z]+) (\S+)")
# What happened to a connection stands only in the part for developers.
_DETAILS = "\n\nDebug source"
_SYSTEM = re.compile(r'(?:message|error): "([^"]+)"')
_BROKEN = {
    "IncompleteMessage": "the connection was closed without one",
    "IncompleteBody": "it broke off",
    "kind: Timeout": "it took too long",
}
_TLS = re.compile(r"\b(?:Invalid|Unknown|NotValid|Expired|Unsupported)\w+")
# That of another region sends its answer without an address.
_REDIRECT = "redirect without LOCATION"
# How obstore says that the credentials of a request could not be had.
_PROVIDER = re.compile(r"credential provider: (?:\w+: )?(.*)")
_LONGEST = 300


class Refusal(OSError):
    """A request to an object store that came to nothing. The text names what was asked, the answer and the remedy."""

    def __init__(self, number: int, text: str, url: str) -> None:
        super().__init__(number, text, url)
        self.code = ""
        """The server's name for it, such as `SlowDown`; empty where nothing was answered."""
        self.is_final = False
        """Whether the same request would be answered alike."""
        self.needs_credentials = False
        """Whether other credentials may be let through."""
        self.have_ended = False
        """Whether the credentials are no longer good, as far as the server tells; it tells nothing of a HEAD."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class Forbidden(Refusal, PermissionError):
    """One that was not allowed."""


def with_remedy(error: OSError, remedy: str) -> str:
    """An error with what helps: an object store's own remedy, else `remedy`."""
    return str(error) if isinstance(error, Refusal) else f"{error}; {remedy}"


def is_passing(error: OSError) -> bool:
    """Whether an object store may well do later what it did not do now."""
    return isinstance(error, Refusal) and not error.is_final


@dataclass(frozen=True)
class Answer:
    """What can be read from obstore's account of a failed request."""

    method: str
    """HTTP's; empty where no request was made."""
    target: str
    """URL that was asked for."""
    status: int | None
    """None where nothing was answered."""
    code: str
    """The server's own name for what is wrong."""
    message: str
    """In words, the server's own or, where it said nothing, the client's."""

    @classmethod
    def of(cls, error: BaseException) -> "Answer":
        text, _, details = str(error).partition(_DETAILS)
        found = dict(_XML.findall(text))
        request, status = _REQUEST.search(text), _STATUS.search(text)
        number = int(status[1]) if status else 301 if _REDIRECT in text else None
        return cls(
            method=request[1] if request else "",
            target=request[2].rstrip(":") if request else "",
            status=number,
            code=found.get("Code", "").strip(),
            message=" ".join(found.get("Message", "").split()) or ("" if number else _transport(text, details)),
        )

    @property
    def operation(self) -> str:
        """LIST, GET, HEAD, PUT, DELETE, or empty."""
        query = self.target.partition("?")[2]
        if self.method == "GET" and ("list-type=" in query or "comp=list" in query):
            return "LIST"
        if self.method == "POST":
            return "DELETE" if query.startswith("delete") else "PUT"
        return self.method


def _transport(text: str, details: str) -> str:
    """What happened to a request that nobody answered."""
    if found := _SYSTEM.findall(details):
        return str(found[-1])
    for word, meaning in _BROKEN.items():
        if word in details:
            return meaning
    if (found := _TLS.findall(details)) and "kind: Connect" in details:
        return f"no secure connection ({found[-1]})"
    return " ".join(text.split())[:_LONGEST]


# What a server says of credentials that others may replace: they have run out, were revoked, or are of another place.
_OF_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "TokenRefreshRequired",
        "RequestExpired",
        "InvalidToken",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "AuthenticationFailed",
        "InvalidAuthenticationInfo",
        "AuthenticationRequired",
    }
)
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "AccountNotFound"})
_OTHER_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "TooManyBuckets"})
# Besides 5xx: conflicts of two writers, and a request that came too slowly.
_PASSING_STATUS = frozenset({408, 409, 425, 429})
_PASSING_CODES = frozenset({"RequestTimeout", "SlowDown", "OperationAborted", "ConditionalRequestConflict"})
_LASTING_STATUS = frozenset({501, 505, 507})
_THERE = 412

_PERMISSIONS = {
    "s3": {"LIST": "s3:ListBucket", "GET": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"},
    "gs": {
        "LIST": "storage.objects.list",
        "GET": "storage.objects.get",
        "PUT": "storage.objects.create and, to replace, storage.objects.delete",
        "DELETE": "storage.objects.delete",
    },
    "az": dict.fromkeys(("LIST", "GET"), "the role Storage Blob Data Reader")
    | dict.fromkeys(("PUT", "DELETE"), "the role Storage Blob Data Contributor"),
}


def refusal_of(error: BaseException, url: str, seconds: float) -> Refusal:
    """An error of obstore, other than of a missing object, as a Refusal.

    Args:
        url: of the object or folder.
        seconds: for which it was tried.
    """
    if lacking := _PROVIDER.search(str(error)):
        denied = Forbidden(errno.EACCES, lacking[1], url)
        denied.is_final = True
        return denied
    answer = Answer.of(error)
    forbidden = answer.status in (401, 403)
    kind, number = (Forbidden, errno.EACCES) if forbidden else (Refusal, errno.EIO)
    refusal = kind(number, f"{_said(answer, seconds)}; {_remedy(answer, url)}", url)
    refusal.code = answer.code
    untold = answer.method == "HEAD" and answer.status in (400, 401, 403)
    refusal.have_ended = answer.code in _OF_CREDENTIALS or untold
    refusal.needs_credentials = forbidden or refusal.have_ended
    refusal.is_final = answer.status is not None and not _is_passing(answer)
    return refusal


def is_missing_bucket(error: BaseException) -> bool:
    """Whether what is missing is the bucket, and not an object in it."""
    return Answer.of(error).code in _NO_BUCKET


def may_be_done(error: BaseException) -> bool:
    """Whether a creation that ended so may have been carried out all the same, by us or by another."""
    answer = Answer.of(error)
    return answer.status is None or answer.status == _THERE or _is_passing(answer)


def _is_passing(answer: Answer) -> bool:
    assert answer.status is not None
    if answer.status >= 500:
        return answer.status not in _LASTING_STATUS
    return answer.status in _PASSING_STATUS or answer.code in _PASSING_CODES


def _said(answer: Answer, seconds: float) -> str:
    """What was asked, and what was answered."""
    asked = f"{answer.operation}: " if answer.operation else ""
    tried = f", for {seconds:,.0f} s" if seconds >= 1 else ""
    if answer.status is None:
        host = urlsplit(answer.target).netloc
        return f"{asked}no answer{' from ' + host if host else ''}{tried}: {answer.message}"
    code = f" {answer.code}" if answer.code else ""
    return f"{asked}{answer.status}{code}{': ' + answer.message if answer.message else ''}{tried}"


def _remedy(answer: Answer, url: str) -> str:
    if answer.status is None:
        return "see that the server is up and the endpoint right; storage.patience_s says how long to try"
    for helps in (_remedy_by_code, _remedy_by_status):
        if remedy := helps(answer, url):
            return remedy
    return "run again when the server does"


def _remedy_by_code(answer: Answer, url: str) -> str:
    code = answer.code
    if code in _NO_BUCKET:
        return "make it, or correct its name or the endpoint"
    if code == "RequestTimeTooSkewed":
        return "set the clock of this machine"
    if code in _OTHER_REGION:
        return "the bucket is in another region: name it with storage.region or AWS_REGION"
    if code in _FULL:
        return "make room there"
    if code == "InvalidAccessKeyId":
        return "the server does not know this key: see to storage.profile, storage.endpoint and the environment"
    if code == "SignatureDoesNotMatch":
        return "the secret key is not that of the access key, or the region is wrong"
    if code in _OF_CREDENTIALS:
        return "the credentials have run out, and there are no newer ones: log in again, then run again"
    return ""


def _remedy_by_status(answer: Answer, url: str) -> str:
    assert answer.status is not None
    if answer.status in (401, 403):
        return _permission(answer, url)
    if answer.status in (301, 302, 307):
        return "the bucket is in another region, or the endpoint is not its own"
    if answer.status == 400 and answer.method == "HEAD":
        return "it says no more to this; the credentials may have run out: log in again, then run again"
    if answer.method == "PROPFIND":
        return "a web server cannot be listed: name the files"
    if answer.status in (405, 501):
        return "this server cannot do that; name another place"
    if answer.status in (429, 503):
        return "run again, perhaps in fewer processes; storage.patience_s says how long to try"
    return ""


def _permission(answer: Answer, url: str) -> str:
    scheme = url.partition("://")[0]
    provider = {"s3a": "s3", "abfs": "az", "abfss": "az"}.get(scheme, scheme)
    operation = "GET" if answer.operation == "HEAD" else answer.operation
    needed = _PERMISSIONS.get(provider, {}).get(operation)
    if needed is None:
        return "the credentials do not let this through"
    also = " (and s3:ListBucket, without which S3 says so of what is missing, too)"
    return f"the credentials need {needed}{also if needed == 's3:GetObject' else ''}"
