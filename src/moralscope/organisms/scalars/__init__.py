"""What does each rank-1 adapter say, token by token, and about what?"""
