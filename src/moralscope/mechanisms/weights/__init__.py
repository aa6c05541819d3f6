"""What did fine-tuning change in the weights? Sizes, spectra, subspaces, directions."""
