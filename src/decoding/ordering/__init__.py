"""The order of a loop's operations on the host and the streams: recorded, checked, explored.

``recording`` runs a loop on a CPU with stand-ins for streams, events and the compiled step, and writes
down what it does: an ``Order``. ``order`` looks for two uses of one memory that no order keeps
apart; ``exploring`` runs through every interleaving; ``words`` says what was found.
"""
