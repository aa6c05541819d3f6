"""What does it do? Policy tables and the label, layout or move control."""
