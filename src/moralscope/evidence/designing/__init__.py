"""Which questions can the tables answer at all?"""
