"""Which claims of existing tables stand? Reading results of any tool, and judging them."""
