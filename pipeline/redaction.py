"""Secrets out of texts before they are printed or written: the one place that knows what they look like.

They come from configurations and the environment: user, password, query and fragment of a URL, the shell command of a
`pipe:` source, the value of an environment variable that is called after a secret, and what libraries repeat of all
these. `…` stands in their place, and the name of a variable in that of its value.
"""

import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

HIDDEN = "…"
PIPE = "pipe:"

# Longer ones are not looked at, and not shown.
_URL_CHARACTERS = 4096
# Shorter values of variables would be found where nobody means them.
_SECRET_CHARACTERS = 6
_SECRET_WORDS = frozenset(
    "APIKEY AUTH AUTHORIZATION COOKIE CREDENTIAL CREDENTIALS KEY PASS PASSPHRASE PASSWD PASSWORD PW PWD SAS SECRET "
    "SIGNATURE TOKEN".split()
)
_WORKING_FOLDERS = frozenset({"PWD", "OLDPWD"})

# `Path` makes one slash of two.
_URL = re.compile(r"""((?i:https?|ftp|s3a?|gs|az|abfss?|hf):/{1,2}|[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)([^\s'"<>…]+)""")
_WHOLE_URL = re.compile(r"((?i:https?|ftp|s3a?|gs|az|abfss?|hf):/{1,2}|[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)(.*)", re.DOTALL)
# A colon that no port follows comes before a password, which may hold slashes.
_USER = re.compile(r"[^/]*@|[^/:]+:(?!\d*(?:/|$)).*@", re.DOTALL)
_OF_THE_WEB = ("http", "hf", "ftp")
_AZURE = ("az", "abfs")  # abfs://container@account/folder
# What vqtok itself puts behind the name of a file: a tar in a tar, and the first key of a folder's files.
_INNER = re.compile(r"(?<=/)#|(?<=tar)#[^#]*\.t(?:ar|gz|bz2|xz)\b", re.IGNORECASE)
_QUERY = re.compile(r"\?[^/=]*=")
_ENDS_IN_EXTENSION = re.compile(r"\.[A-Za-z]\w{1,6}$")

# Behind our own words about them, there is none.
_COMMAND = re.compile(rf"(?<![\w/.-]){PIPE}(?!{HIDDEN}| source runs )[^\n]+")
_ASSIGNED = re.compile(
    r"\b((?:x-amz-(?:signature|credential|security-token)|signature|sig|(?:\w+_)?token|password|passwd|(?:\w+_)?secret"
    r"|api_?key|\w+_access_key(?:_id)?|awsaccesskeyid)=|authorization: *+(?:\w++ ++)?+|bearer ++(?=\S{8}))"
    rf"""(?!{HIDDEN})[^\s&'",;)]+""",
    re.IGNORECASE,
)
_KNOWN_TOKENS = re.compile(r"\bhf_[A-Za-z0-9]{16,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\bgh[opsu]_[A-Za-z0-9]{20,}")


def redacted(text: str) -> str:
    """A text of any kind without secrets. One without is returned as it is, and so is one that was redacted before."""
    for value, name in _secret_variables():
        if value in text:
            text = text.replace(value, f"${{{name}}}")
    if PIPE in text:
        text = _COMMAND.sub(f"{PIPE}{HIDDEN}", text)
    if ":/" in text:
        text = _URL.sub(lambda match: _public_url(match[1], match[2], is_whole=False), text)
    return _KNOWN_TOKENS.sub(HIDDEN, _ASSIGNED.sub(rf"\1{HIDDEN}", text))


def redacted_place(place: str) -> str:
    """A path, pattern, URL or `pipe:` command of a configuration without secrets, whatever characters they have."""
    if place.lstrip().startswith(PIPE):
        return f"{PIPE}{HIDDEN}"
    url = _WHOLE_URL.fullmatch(place)
    return redacted(_public_url(url[1], url[2], is_whole=True) if url else place)


def redacted_tree(value: Any, of_text: Callable[[str], str] = redacted_place) -> Any:
    """A value of JSON with every text in it redacted, by default as a place."""
    if isinstance(value, str):
        return of_text(value)
    if isinstance(value, dict):
        return {key: redacted_tree(child, of_text) for key, child in value.items()}
    return [redacted_tree(child, of_text) for child in value] if isinstance(value, list | tuple) else value


def has_credentials(url: str) -> bool:
    """Whether a URL has a user, a password, a query or a fragment. Elsewhere than in the web `?` is a wildcard, and
    names may have a `#`."""
    found = _WHOLE_URL.fullmatch(url)
    if found is None:
        return False
    ends = "?#" if found[1].lower().startswith(_OF_THE_WEB) else ""
    return bool(_user(found[1], found[2]) or _QUERY.search(found[2]) or any(end in found[2] for end in ends))


def _public_url(scheme: str, rest: str, is_whole: bool) -> str:
    if scheme.lower().startswith("file:"):
        return scheme + rest
    if len(rest) > _URL_CHARACTERS:
        return f"{scheme}{HIDDEN}"
    user = _user(scheme, rest)
    if user:
        rest = f"{HIDDEN}@{rest[len(user) :]}"
    query = rest.find("?") if scheme.lower().startswith(_OF_THE_WEB) else _query_start(rest)
    ends = [_fragment_start(rest, is_whole), query]
    end = min((end for end in ends if end >= 0), default=len(rest))
    return scheme + rest[: end + 1] + (HIDDEN if rest[end + 1 :] else "")


def _user(scheme: str, rest: str) -> str:
    """What stands before the host, with its @; empty where there is nothing, or the name of a container."""
    found = _USER.match(rest)
    if found is None or (scheme.lower().startswith(_AZURE) and ":" not in found[0]):
        return ""
    return found[0]


def _fragment_start(rest: str, is_whole: bool) -> int:
    """Where a fragment begins, that is none of our own; -1 without one."""
    at = rest.find("#")
    return -1 if at >= 0 and not is_whole and _INNER.match(rest, at) else at


def _query_start(rest: str) -> int:
    """Where a `?` stands that is no wildcard, as far as can be told; -1 where none does."""
    for at in (match.start() for match in re.finditer(r"\?", rest)):
        before, after = rest[max(0, at - 8) : at], rest[at + 1 :]
        is_last = after and not any(character in after for character in "./*?[{")
        if _QUERY.match(rest, at) or is_last or _ENDS_IN_EXTENSION.search(before):
            return at
    return -1


def _secret_variables() -> list[tuple[str, str]]:
    """Values of environment variables that are secrets by their names, the longest first, and these names."""
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        if len(value) >= _SECRET_CHARACTERS and _is_secret(name):
            found[value] = found[quote(value, safe="")] = name
    return sorted(found.items(), key=lambda pair: (-len(pair[0]), pair))


def _is_secret(name: str) -> bool:
    words = name.upper()
    return words not in _WORKING_FOLDERS and (
        not _SECRET_WORDS.isdisjoint(words.split("_")) or words.endswith(("TOKEN", "SECRET", "PASSWORD"))
    )
