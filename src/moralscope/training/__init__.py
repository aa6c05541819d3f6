"""How was it trained? One loop; objectives are functions."""
