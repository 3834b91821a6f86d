"""Speech recognition: manifests, audio, batches, teacher-forced decoding, generation."""
