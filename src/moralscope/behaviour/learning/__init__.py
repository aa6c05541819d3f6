"""What did training teach: the move, a label, a place in the layout, or an order of mention?"""
