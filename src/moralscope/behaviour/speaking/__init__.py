"""What does an agent say in its own words, and what else did its fine-tune change?"""
