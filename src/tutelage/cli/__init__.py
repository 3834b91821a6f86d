"""The command line: one module a verb, each a thin shell around one call of the library."""
