"""Pages of a run: contact sheet, film strip, plots, HTML."""
