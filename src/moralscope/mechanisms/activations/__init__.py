"""What do agents compute? Activations on disk, and under other libraries' names."""
