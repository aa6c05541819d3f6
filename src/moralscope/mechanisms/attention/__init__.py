"""Where does the decision look, and does what it sees there matter? Weights, masses, edits."""
