"""What do the claims answer? Research questions in plain words, never stronger than the claims."""
