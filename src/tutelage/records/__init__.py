"""What is remembered of a run: values, documents, provenance, the ledger."""
