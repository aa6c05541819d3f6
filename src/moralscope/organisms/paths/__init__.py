"""When did it happen? The path of weights through a training, and its transitions; numpy only."""
