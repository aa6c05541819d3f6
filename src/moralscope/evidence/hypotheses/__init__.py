"""Was it said before? Hypotheses by name, and the test that each of them asks for."""
