"""Speech of several synthesizers, what an avatar may do to it, and what is said.

Material for judging whether what comes back from an avatar is what it was told to say. Virtual
time: nothing here needs a server, a network or a clock.
"""
