"""What several stages do, done in one way: a config's images, transforms, graphs and engines, and how it trains.

Here the config meets the rooms. No stage is imported here, so that none knows another.
"""
