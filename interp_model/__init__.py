"""The interpretable CNN itself: templates, masks, filter loss, backbones, metrics; no files, no clock, no cluster."""
