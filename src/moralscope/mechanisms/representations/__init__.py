"""What do agents hold in their residual streams? Similarity, directions, subspaces."""
