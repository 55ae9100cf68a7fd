# SPDX-License-Identifier: Apache-2.0
"""What MkDocs builds besides docs/: pages made from definitions, and links from the pages to the repository.

mkdocs.yml names this file as a hook. A link to a file that does not exist is a warning, which
`mkdocs build --strict` turns into a failure.
"""

from __future__ import annotations

import configparser
import logging
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
log = logging.getLogger("mkdocs.hooks.docs_site")

COPIES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "examples.md": "examples/README.md",
    "nano.md": "models/nano/README.md",
}
"""Pages of the site that are files elsewhere in the repository."""

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
_FIELD = re.compile(r"(\S+)\s+([A-Za-z]\w*)\s*((=?)\s*([^#\s][^#]*))?(?:#\s*(.*))?")


def repository_url() -> str:
    """The one place that knows where the repository is: `url` in setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return setup["metadata"]["url"].rstrip("/")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Called by MkDocs first."""
    config.repo_url = repository_url()
    config.repo_name = "mobilevlm_ros"
    named = str(config.nav)
    found = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    if others := [name for name in found if f"'{name}'" not in named]:  # a new page is never out of reach
        config.nav = [*(config.nav or []), {"More": others}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs with the files of docs/: adds the pages that are made."""
    made = {name: (ROOT / source).read_text(encoding="utf-8") for name, source in COPIES.items()}
    made["parameters.md"] = parameters_page()
    made["messages.md"] = messages_page()
    made["commands.md"] = commands_page()
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Called by MkDocs with each page: its links, which are the repository's, become the site's."""
    source = COPIES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return rewrite_links(markdown, source, str(config.repo_url))


def rewrite_links(markdown: str, source: str, repository: str) -> str:
    """Links of the file `source` (relative to the repository) as the site has them; warns about dead ones."""
    pages = {path: name for name, path in COPIES.items()}
    here = posixpath.dirname({path: f"docs/{name}" for path, name in pages.items()}.get(source, source))

    def replace(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        anchor = f"#{anchor}" if anchor else ""
        if path in pages:
            path = f"docs/{pages[path]}"
        elif path.startswith("docs/"):
            pass  # MkDocs checks it
        elif not (ROOT / path).exists():
            log.warning("%s links to %s, which does not exist", source, match[2])
        else:
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"{match[1]}{repository}/{kind}/main/{path}{anchor}{match[3]}"
        return f"{match[1]}{posixpath.relpath(path, here)}{anchor}{match[3]}"

    return _LINK.sub(replace, markdown)


def parameters_page() -> str:
    """The node's parameters, from the table that the node itself reads."""
    from mobilevlm_ros.nodes.parameters.table import SPECS

    lines = [
        "# Parameters",
        "",
        "Made from the table that the node reads. `ros2 param describe /mobilevlm NAME` tells the same.",
        "A *live* parameter takes effect at once; the others when the node is configured.",
        "",
        "| name | default | live | meaning |",
        "|---|---|---|---|",
    ]
    for spec in SPECS:
        bounds = f" {spec.bounds[0]:g} to {spec.bounds[1]:g}." if spec.bounds else ""
        choices = f" One of {', '.join(f'`{c}`' for c in spec.choices)}." if spec.choices else ""
        text = (
            f"{spec.description}{bounds}{choices}".replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
        )
        lines.append(f"| `{spec.name}` | `{spec.default!r}` | {'yes' if spec.live else ''} | {text} |")
    return "\n".join(lines) + "\n"


def messages_page() -> str:
    """Messages, services and actions, from the comments of their definitions."""
    about = "Package `mobilevlm_msgs`. Made from the definitions, whose comments are the contract."
    lines = ["# Messages", "", about, ""]
    kinds = (("srv", "Services", "srv"), ("action", "Actions", "action"), ("msg", "Messages", "msg"))
    for folder, title, suffix in kinds:
        lines += [f"## {title}", ""]
        for path in sorted((ROOT / "msg" / folder).glob(f"*.{suffix}")):
            lines += [f"### {path.stem}{'' if folder == 'msg' else f' ({folder})'}", ""]
            lines += _interface(path.read_text(encoding="utf-8"), folder)
    return "\n".join(lines) + "\n"


def _interface(text: str, kind: str) -> list[str]:
    parts = re.split(r"^---$", text, flags=re.MULTILINE)
    titles = {"srv": ("Request", "Response"), "action": ("Goal", "Result", "Feedback")}.get(kind, ("",))
    lines: list[str] = []
    for title, part in zip(titles, parts):
        lines += [f"**{title}**", ""] if title else []
        for comment, fields in _groups(part):
            if not fields:
                lines += [*comment, ""]
                continue
            for number, field in enumerate(fields):
                lines.append(f"`{field}`")
                if number + 1 < len(fields):
                    lines[-1] += ","
            first, *rest = comment or ["&nbsp;"]
            lines += ["", f":   {first}", *(f"    {line}" for line in rest), ""]
    return lines


def _groups(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """(comment as Markdown, fields) of each paragraph of a definition."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        comment: list[str] = []
        fields: list[str] = []
        for line in paragraph.splitlines():
            if line.startswith("#"):
                comment.append(line[1:].removeprefix(" ").rstrip())
            elif match := _FIELD.fullmatch(line.strip()):
                value = f" {'=' if match[4] else 'default'} {match[5].strip()}" if match[3] else ""
                fields.append(f"{match[1]} {match[2]}{value}")
                comment += [f"`{match[2]}`: {match[6]}  "] if match[6] else []
        yield _markdown(comment), fields


def _markdown(comment: list[str]) -> list[str]:
    """Comment lines: a ruled line is a heading, an indented one is literal."""
    lines: list[str] = []
    for line in comment:
        if ruled := re.fullmatch(r"=+ (.*?) =+", line):
            lines += [f"*{ruled[1]}*", ""]
        elif line.startswith("  "):
            if not (lines and lines[-1].startswith("        ")):
                lines.append("")
            lines.append(f"      {line}")
        else:
            lines.append(re.sub(r"([<>])", r"\\\1", line))
    return lines


def commands_page() -> str:
    """The help of each verb of `mobilevlm`."""
    from mobilevlm_ros.commands.verbs import VERBS, parser_of

    about = "What `mobilevlm help VERB` says. `mobilevlm completion bash` prints a completion script."
    lines = ["# Command line", "", about, ""]
    for verb, text in VERBS.items():
        lines += [f"## {verb}", "", f"{text[:1].upper()}{text[1:]}.", "", "```text"]
        lines += [*parser_of(verb).format_help().rstrip().splitlines(), "```", ""]
    return "\n".join(lines) + "\n"
