"""Is what an organism learned one direction of its stream? Found, held against chance, removed."""
