"""Self-contained HTML pages about laws and plans: what to say, figures, the page."""
