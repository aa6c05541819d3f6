"""When does training change what? Distances of earlier states from the base and from the end."""
