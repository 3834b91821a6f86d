"""Model folders: resolve a reference to files, verify them, load them, count their parameters."""
