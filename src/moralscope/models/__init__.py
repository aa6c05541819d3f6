"""Who decides, and where? Loading, anatomy, the prompt tree, scoring, capture."""

# Imported first so that a missing model stack is explained before anything else fails.
from moralscope.models import libraries as libraries
