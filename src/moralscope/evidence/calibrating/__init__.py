"""How often are the tests wrong? Simulated studies with known truth, and what tests make of them."""
