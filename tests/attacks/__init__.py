"""The attacks of `attack.py`: hostile files, flipped bits, flags at random, kills."""
