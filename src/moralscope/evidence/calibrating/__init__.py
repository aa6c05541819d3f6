"""What are the tests worth? Error rates, coverage and power on simulated studies of known truth."""
