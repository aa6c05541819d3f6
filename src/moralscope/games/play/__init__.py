"""What happens when they play? Repeated games between strategies, exactly and round by round."""
