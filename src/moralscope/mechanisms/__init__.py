"""What changed inside? Lens, attribution, patching."""
