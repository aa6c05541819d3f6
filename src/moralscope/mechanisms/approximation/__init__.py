"""How large is every effect, roughly, and how good is that? Gradients in place of patches."""
