"""How does narrow training generalise? Organisms, their spread, directions and transitions."""
