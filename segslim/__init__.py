"""Makes segmentation networks small and fast for the devices they must run on."""
