"""Networks: built from their config, saved to and loaded from checkpoint folders and .pdparams files.

Of the rooms it knows the channels alone, which a checkpoint may have lost. It must not know data, nor training. A file
of weights may come from anybody: it is read as data.
"""
