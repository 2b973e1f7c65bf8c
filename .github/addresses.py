"""Before a release is built: whole addresses in README.md, and those of the project in pyproject.toml.

`python .github/addresses.py https://github.com/OWNER/NAME v1.2.3` changes both files where they are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def whole(markdown: str, home: str, tag: str) -> str:
    """`markdown` with links and pictures that lead through the repository as addresses of it at `tag`."""

    def lead(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        return f"{picture}[{text}]({home}/{'raw' if picture else 'blob'}/{tag}/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", lead, markdown)


def urls(project: str, home: str, tag: str) -> str:
    """pyproject.toml's text with the project's addresses."""
    table = f'[project.urls]\nHomepage = "{home}"\nChangelog = "{home}/blob/{tag}/CHANGELOG.md"\n'
    table += f'Documentation = "{home}/tree/{tag}/docs"\nIssues = "{home}/issues"\n\n'
    return project.replace("[project.scripts]", table + "[project.scripts]")


def main() -> None:
    """Change the files of the folder that this runs in."""
    home, tag = sys.argv[1:]
    for name, change in (("README.md", whole), ("pyproject.toml", urls)):
        path = Path(name)
        path.write_text(change(path.read_text("utf-8"), home, tag), "utf-8")


if __name__ == "__main__":
    main()
