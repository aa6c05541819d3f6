"""What may a study file say? The settings under each of its keys."""
