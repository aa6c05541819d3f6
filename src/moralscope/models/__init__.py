"""Who decides, and where? Loading, anatomy, the prompt tree, scoring, capture."""
