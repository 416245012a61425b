"""Build the documentation: README and docs/*.md as pages, the API by pdoc. ``python .ci/docs.py DIRECTORY``."""

import html
import re
import shutil
import sys
from pathlib import Path

import markdown2
import pdoc
import pdoc.render

ROOT = Path(__file__).parents[1]
EXTRAS = ["tables", "fenced-code-blocks", "header-ids", "code-friendly", "cuddled-lists"]
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }}
pre, code {{ background: #f4f4f4; font-size: .92em; }} pre {{ padding: .7rem; overflow-x: auto; }}
table {{ border-collapse: collapse; }} td, th {{ border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; }}
img {{ max-width: 100%; }} nav a {{ margin-right: 1rem; }}
</style></head><body><nav>{links}</nav>
{body}
</body></html>
"""


def pages() -> list[Path]:
    """Markdown files of the project that become pages, relative to its folder."""
    found = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    found += sorted((ROOT / "docs").rglob("*.md"))
    return [path.relative_to(ROOT) for path in found]


def build(site: Path) -> None:
    """Write the whole site; what was there before goes."""
    shutil.rmtree(site, ignore_errors=True)
    names = pages()
    top = [name for name in names if len(name.parts) <= 2]
    for name in names:
        target = site / name.with_suffix(".html")
        target.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(name.parts) - 1)
        links = "".join(f'<a href="{up}{page.with_suffix(".html")}">{page.stem}</a>' for page in top)
        links += f'<a href="{up}api/algospace.html">API</a>'
        text = (ROOT / name).read_text(encoding="utf-8")
        body = str(markdown2.markdown(text, extras=EXTRAS))
        body = re.sub(r'(href="(?![a-z]+:)[^"#]*)\.md(["#])', r"\1.html\2", body)
        target.write_text(PAGE.format(title=html.escape(name.stem), links=links, body=body), encoding="utf-8")
        for path in re.findall(r'(?:href|src)="(?![a-z]+:|#)([^"#]+)', body):
            source = (ROOT / name).parent / path
            if source.is_file() and source.suffix != ".md":
                copy = site / name.parent / path
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, copy)
    shutil.copy(site / "README.html", site / "index.html")
    pdoc.render.configure(docformat="numpy", show_source=False, search=False)
    pdoc.pdoc("algospace", output_directory=site / "api")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
