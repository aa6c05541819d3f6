"""What if it were otherwise? Ablation and steering as context managers."""
