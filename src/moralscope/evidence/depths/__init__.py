"""Where in models of different size does training act? Profiles over relative depth."""
