"""Text for causal language models: documents, tokens, packed rows, passes, scores, continuations."""
