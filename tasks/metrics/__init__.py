"""The metrics stage: what the ranks logged becomes one report, plots, and a summary for people."""
