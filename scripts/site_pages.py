"""A hook of mkdocs: pages of the site that do not lie in docs/, and links to them.

One text serves the repository and the site: a link in a page is relative to the file it stands in. Where the site has
the file that it names at another place, the link is written anew; any other stays, and mkdocs complains of what leads nowhere.
"""

from __future__ import annotations

import re
from os.path import normpath, relpath
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
ASSETS = "blip2sweep/assets"
# The page of the site by the file in the repository, both relative to their roots.
ELSEWHERE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"} | {
    f"{ASSETS}/{name}/README.md": f"cards/{name}.md" for name in ("tiny", "tiny-llava", "tiny-itm")
}
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies elsewhere."""
    from mkdocs.structure.files import File

    for file, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=without_front_matter((ROOT / file).read_text())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of a page lead to where the site has what they name."""
    return linked(markdown, page.file.src_uri)


def linked(text: str, page: str) -> str:
    """The text of a page of the site, with its links made relative to where it stands there."""
    file = next((f for f, there in ELSEWHERE.items() if there == page), f"docs/{page}")
    return LINK.sub(lambda found: found[1] + moved(found[2], file, page) + found[3], text)


def moved(link: str, file: str, page: str) -> str:
    """A link in a file of the repository, as the page of the site has it."""
    meant = normpath(f"{Path(file).parent.as_posix()}/{link}")
    there = ELSEWHERE.get(meant, meant.removeprefix("docs/"))
    return link if there == meant else relpath(there, Path(page).parent).replace("\\", "/")


def without_front_matter(text: str) -> str:
    """A model card begins with YAML for the hub."""
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
