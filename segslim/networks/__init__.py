"""Networks: built from their config, saved to and loaded from checkpoint folders and .pdparams files."""
