"""How fast, and how exactly? Each fast path against the plain way of doing the same."""
