"""Which few sites suffice? Searches, curves, stability and localisation."""
