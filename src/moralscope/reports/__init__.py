"""Show it: figures, HTML report, model cards."""
