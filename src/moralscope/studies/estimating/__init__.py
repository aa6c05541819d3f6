"""What would it take? Forwards, time and disk of every stage, before any is run."""
