"""Project URLs of the package, from where it is built: a fork that publishes it names itself.

Taken from the environment of GitHub's and GitLab's runners, or from VQTOK_URL. Without any there are none.
"""

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ProjectUrls(MetadataHookInterface):
    """Called by hatchling, see `tool.hatch.metadata.hooks.custom` in pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        home = _repository().rstrip("/")
        pages = {"Documentation": "tree/main/docs", "Changelog": "blob/main/CHANGELOG.md", "Issues": "issues"}
        metadata["urls"] = (
            {"Homepage": home, **{name: f"{home}/{page}" for name, page in pages.items()}} if home else {}
        )


def _repository() -> str:
    if own := os.environ.get("VQTOK_URL") or os.environ.get("CI_PROJECT_URL"):
        return own
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{name}" if server and name else ""
