"""May anything be concluded at all? Checks of the measurement itself, before any inference."""
