"""One look for every drawing: colours, names, sizes, and how a colour follows the page's theme."""

from types import MappingProxyType

# Okabe and Ito's palette for all forms of colour blindness (jfly.uni-koeln.de/color), and a violet; then three
# of Tol's muted scheme (personal.sron.nl/~pault), darkened to stand out from white.
COLOURS = MappingProxyType(
    {
        "naive": "#D55E00",
        "kv_cache": "#0072B2",
        "expandable_segments": "#CC79A7",
        "static_cache": "#E69F00",
        "compiled": "#009E73",
        "two_streams": "#7B4FD6",
        "deferred_check": "#882255",
        "captured_graph": "#77771E",
        "device_loop": "#1A869E",
        "fused_step": "#7A5230",
        "one_kernel": "#B8336A",
    }
)
LABELS = MappingProxyType(
    {
        "naive": "naive",
        "kv_cache": "KV cache",
        "expandable_segments": "expandable segments",
        "static_cache": "static cache",
        "compiled": "compiled",
        "two_streams": "two streams",
        "deferred_check": "deferred check",
        "captured_graph": "captured graph",
        "device_loop": "device loop",
        "fused_step": "fused step",
        "one_kernel": "one kernel",
    }
)

FOREGROUND, BACKGROUND, MUTED, GRID = "#1D2129", "#FFFFFF", "#5A616C", "#D9DCE1"
# What a timeline shows: the host launches and waits, the GPU works, copies and is idle. Work, copies,
# idle time and the host's grey have a contrast of 3:1 or more against the page, in light and dark.
WORK, COPY, CHECK, IDLE, HOST = "#33779E", "#117755", "#B07D10", "#CC3311", "#7D8490"

# The variables of the book's style sheet. Where there is none, the colour itself is the fallback.
THEME = MappingProxyType(
    {
        FOREGROUND: "currentColor",
        BACKGROUND: "var(--ttb-background, Canvas)",
        MUTED: "var(--ttb-muted, currentColor)",
        GRID: "var(--ttb-grid, #88888840)",
        WORK: f"var(--ttb-work, {WORK})",
        COPY: f"var(--ttb-copy, {COPY})",
        CHECK: f"var(--ttb-check, {CHECK})",
        IDLE: f"var(--ttb-idle, {IDLE})",
        HOST: f"var(--ttb-host, {HOST})",
    }
    | {colour: f"var(--ttb-{name}, {colour})" for name, colour in COLOURS.items()}
)

# The grid of all figures. One unit of a drawing is one CSS pixel, and a page shows it at most LARGEST
# times as large, so that its one size of text is 13 to 14 pixels wherever it stands.
WIDTH, WIDE = 400, 688  # the narrow width, and that of the text
PANEL = 300  # half the text's width, in a card with its margins
NARROW = 326  # a timeline on a phone
FONT, LARGEST = 13, 14 / 13
STYLE = MappingProxyType(
    {
        "figure.dpi": 72,
        "savefig.dpi": 72,
        "font.size": FONT,
        "font.family": "DejaVu Sans",  # ships with matplotlib; wider than the fonts of most pages
        "text.color": FOREGROUND,
        "text.parse_math": False,
        "axes.titlesize": FONT,
        "axes.labelsize": FONT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": FOREGROUND,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 1,
        "xtick.labelsize": FONT,
        "ytick.labelsize": FONT,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": FOREGROUND,
        "ytick.labelcolor": FOREGROUND,
        "ytick.major.size": 0,
        "lines.linewidth": 2.5,
        "lines.solid_capstyle": "round",
        "patch.linewidth": 1.2,
        "path.simplify_threshold": 0.3,
        "svg.fonttype": "none",
        "svg.hashsalt": "decoding",
    }
)


def colour_of(record):
    """Return the colour of a record: its rung's, or expandable segments' where only it has them."""
    variant = record.get("variant") or {}
    allocator = variant.get("allocator")
    lent = allocator != variant.get("rung_allocator", allocator)
    return COLOURS.get(lent and allocator) or COLOURS.get(record.get("rung"), MUTED)


def label_of(name):
    """Return what figures call a rung; any other name is its own label."""
    return LABELS.get(name, name)
