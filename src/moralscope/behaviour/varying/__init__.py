"""How do decisions vary: over situations, games, wordings and agents?"""
