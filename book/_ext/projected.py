"""Write the figures that a class looks at as files of their own, for a whole window or a slide."""

from pathlib import Path

from decoding.pages.handouts import projected

FOLDER = "_static/projected"


def write_figures(app, exception):
    if exception or app.builder.format != "html":
        return
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in projected().items():
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")


def setup(app):
    app.connect("build-finished", write_figures)
    return {"parallel_read_safe": True, "version": "1"}
