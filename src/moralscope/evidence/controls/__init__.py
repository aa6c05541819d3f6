"""Do the tests find what is there, and nothing where nothing is? Controls, judged from tables."""
