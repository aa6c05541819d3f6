"""At which depth is the decision there? The logit lens, its controls, and where it settles."""
