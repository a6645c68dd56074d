"""README as the package index shows it: links and pictures lead to the site, which has README as its first page."""

from __future__ import annotations

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

ELSEWHERE = {"CONTRIBUTING.md": "contributing/", "CHANGELOG.md": "changelog/"}


class AbsoluteReadme(MetadataHookInterface):
    """Fills the field ``readme``, which pyproject.toml calls dynamic."""

    def update(self, metadata: dict) -> None:
        """Set ``readme`` from README.md and the address of the documentation."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        site = metadata["urls"]["Documentation"]
        metadata["readme"] = {"content-type": "text/markdown", "text": with_absolute_links(text, site)}


def with_absolute_links(text: str, site: str) -> str:
    """A text of Markdown with the links of the repository's root as links of the site.

    Args:
        text: of README.md.
        site: address of the documentation, with a slash at its end.

    Raises:
        ValueError: a link leads to a file that the site does not have.
    """

    def absolute(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if target.startswith(("http://", "https://")):
            return match[0]
        if target in ELSEWHERE:
            return f"]({site}{ELSEWHERE[target]}{anchor})"
        if not target.startswith("docs/"):
            raise ValueError(f"README.md links to {target}, which the site of the documentation does not have")
        page = target.removeprefix("docs/")
        return f"]({site}{page.removesuffix('.md') + '/' if page.endswith('.md') else page}{anchor})"

    return re.sub(r"\]\(([^)#]+)(#[^)]*)?\)", absolute, text)
