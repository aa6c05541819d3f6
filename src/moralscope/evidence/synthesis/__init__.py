"""How far apart are two agents at every level, on one scale?"""
