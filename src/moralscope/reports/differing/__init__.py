"""What differs between two runs? Settings, circumstances, claims, and every row of every table."""
