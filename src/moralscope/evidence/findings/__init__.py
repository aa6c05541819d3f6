"""What do the tables say? One module per kind of claim: estimate, test, sentences, query."""
