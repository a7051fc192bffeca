"""The colours of contact sheets, plots and pages, as #rrggbb."""

# surfaces: a sheet or page, and a plot or table on it
PAGE, PAPER = "#fafaf8", "#ffffff"
# text, and text of less weight
INK, FAINT = "#1c1e22", "#6e7278"
# lines between parts, the grid of a plot, and what fills the place of a missing picture
RULE, GRID, EMPTY = "#ced0d2", "#eceded", "#e2e3e4"

TEAL, OCHRE, PURPLE, GREEN = "#4a7a8c", "#b8763e", "#7a5c8c", "#5d8a4a"
PINK, BLUE, OLIVE, JADE = "#a04a6a", "#3e5cb8", "#8c7a2f", "#4a8c82"
# data series, in the order in which they are taken; the second is the accent beside the first
SERIES = (TEAL, OCHRE, PURPLE, GREEN, PINK, BLUE, OLIVE, JADE)
# thresholds, warnings, and the one point that matters
RED = "#b03a2e"
