"""What is being decided? Payoff matrices, opponents, rewards, wording, prompt sets."""
