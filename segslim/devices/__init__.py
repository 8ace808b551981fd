"""Times of the machine that a network is for: over ssh (`board`), or by a file that is carried there (`packed`).

`on_board` is what runs there, with Python, NumPy and the engines' wheels alone.
It knows neither stages nor the config, and `on_board` nothing beside the modules that packed.MODULES names.
"""
