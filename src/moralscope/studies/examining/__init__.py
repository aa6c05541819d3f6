"""What would a given study need of this machine, and what could it find?"""
