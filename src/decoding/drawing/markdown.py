"""Markdown to display: where it is not understood, its text is readable as it stands."""


class Markdown:
    """Markdown that displays itself."""

    def __init__(self, text):
        self.text = text

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/markdown": self.text, "text/plain": self.text}

    def __repr__(self):
        return self.text
