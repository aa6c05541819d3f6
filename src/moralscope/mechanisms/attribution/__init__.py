"""How much does each component push the decision? Exact attribution, and its change from a base."""
