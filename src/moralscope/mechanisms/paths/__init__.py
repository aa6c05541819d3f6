"""What does one component tell another? Path patching."""
