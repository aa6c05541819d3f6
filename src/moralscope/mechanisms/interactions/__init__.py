"""Which components work together, and does one act through the other? Sizes, shares, pathways."""
