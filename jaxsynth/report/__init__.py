"""Pages of finished runs: contact sheet, film strip, plots, HTML."""
