"""One verb per task over all the rest."""
