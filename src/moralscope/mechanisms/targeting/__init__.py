"""Which parts of a model must be trained? Choosing them from what an analysis found."""
