"""Times of the machine that a network is for: over ssh (`board`), or by a file that is carried there (`packed`).

`on_board` is what runs there, with Python, NumPy and the engines' wheels alone.
"""
