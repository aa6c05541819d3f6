"""What has to be computed, in which order? One module per subject."""
