"""Call a source by its authors and year, with the same words in the text and in the bibliography."""

from collections import Counter
from string import ascii_lowercase

from pybtex.plugin import register_plugin
from pybtex.richtext import Text
from pybtex.style.formatting.plain import Style as Plain
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.sorting import BaseSortingStyle
from pybtex.style.template import field, sentence


class AuthorYearLabels(BaseLabelStyle):
    """Labels such as "Dao et al., 2022"; letters tell apart what has the same authors and year."""

    def format_labels(self, sorted_entries):
        labels = [label(entry) for entry in sorted_entries]
        count, letters = Counter(labels), {name: iter(ascii_lowercase) for name in labels}
        for name in labels:
            yield name + next(letters[name]) if count[name] > 1 else name


class ByLabel(BaseSortingStyle):
    """The order of the labels, then of the titles, whatever their case."""

    def sorting_key(self, entry):
        title = str(Text.from_latex(entry.fields["title"]))
        return label(entry).lower(), title.lower()


class AuthorYear(Plain):
    """The plain style with these labels, and with titles written as the source writes them."""

    default_label_style = AuthorYearLabels
    default_sorting_style = ByLabel

    def format_title(self, e, which_field, as_sentence=True):
        title = field(which_field)
        return sentence[title] if as_sentence else title


def label(entry):
    """Return the authors of an entry and its year: one, two, or the first of more."""
    names = [
        str(Text.from_latex(" ".join(person.prelast_names + person.last_names)))
        for person in entry.persons["author"]
    ]
    if len(names) > 2 or names[-1] == "others":
        names = [f"{names[0]} et al."]
    return f"{' and '.join(names)}, {entry.fields['year']}"


def setup(app):
    register_plugin("pybtex.style.formatting", "author_year", AuthorYear)
    return {"parallel_read_safe": True, "version": "1"}
