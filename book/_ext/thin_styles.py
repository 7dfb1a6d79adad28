"""Take out of the theme's style sheets what no page of the book uses: most of Bootstrap, all icon fonts.

A rule goes if each of its selectors needs a class that stands in no page and in no script of the
book. What is left is as the theme wrote it, in its order. The book's own style sheets stay whole.
"""

import re
from pathlib import Path

import tinycss2

THEMES = ("styles/*.css", "mystnb.*.css", "sphinx-design.min.css")
THEMES += ("basic.css", "togglebutton.css", "pygments.css")
CLASS = re.compile(r"\.(-?[A-Za-z_][\w-]*)")
WORD = re.compile(r"-?[A-Za-z_][\w-]*")
CONDITIONS = re.compile(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)")  # may name any class
HOLDING = ("media", "supports", "layer")
ICON_FONT = "Font Awesome"  # its place is taken by icons.css


def thinned(css, used):
    """Return a style sheet without the rules that need a class which is not in ``used``."""
    return _written(tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True), used)


def _written(rules, used):
    kept = []
    for rule in rules:
        if rule.type == "qualified-rule":
            selectors = _split(tinycss2.serialize(rule.prelude))
            wanted = [one for one in selectors if used.issuperset(_needed(one))]
            if wanted:
                kept.append(f"{','.join(wanted)}{{{tinycss2.serialize(rule.content)}}}")
        elif rule.type == "at-rule" and rule.at_keyword in HOLDING and rule.content is not None:
            inside = tinycss2.parse_rule_list(
                rule.content, skip_comments=True, skip_whitespace=True
            )
            held = _written(inside, used)
            if held:
                kept.append(f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{held}}}")
        elif rule.type == "at-rule":
            words = rule.serialize()
            if not (rule.at_keyword == "font-face" and ICON_FONT in words):
                kept.append(words)
        elif rule.type == "error":
            raise ValueError(f"A style sheet cannot be read: {rule.message}")
    return "\n".join(kept)


def _needed(selector):
    return CLASS.findall(CONDITIONS.sub("", selector))


def _split(selectors):
    """Split a list of selectors at its outer commas."""
    parts, depth = [""], 0
    for sign in selectors:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(sign, 0)
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def used_in(folder):
    """Return the classes of the pages in a folder, and every word of the scripts that they load."""
    used, scripts = set(), set()
    for page in Path(folder).rglob("*.html"):
        if "_static" in page.parts:
            continue
        html = page.read_text(encoding="utf-8")
        for classes in re.findall(r'\bclass=(?:"([^"]*)"|\'([^\']*)\')', html):
            used.update(" ".join(classes).split())
        for script in re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL):
            used.update(WORD.findall(script))
        scripts |= {
            (page.parent / source.partition("?")[0]).resolve()
            for source in re.findall(r'<script[^>]* src="([^":]*)"', html)
        }
    for script in sorted(scripts):
        if script.exists() and script.name != "searchindex.js":
            used.update(WORD.findall(script.read_text(encoding="utf-8")))
    return {name for name in used if not re.match(r"fa[srb]?(-|$)", name)}


def thin_out(app, error):
    if error or app.builder.format != "html":
        return
    used = used_in(app.outdir)
    for pattern in THEMES:
        for path in (Path(app.outdir) / "_static").glob(pattern):
            path.write_text(thinned(path.read_text(encoding="utf-8"), used), encoding="utf-8")


def setup(app):
    app.connect("build-finished", thin_out)
    return {"parallel_read_safe": True, "version": "1"}
