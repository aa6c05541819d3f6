"""Which parts carry the difference? Interventions as rows, at any site and position."""
