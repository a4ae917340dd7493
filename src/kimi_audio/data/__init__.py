"""Data room: manifests, the cache of features and codes, augmentation."""
