"""How does an agent fare in repeated games: alone with an opponent, in fields, in populations?"""
