"""Students: shrunk models, adapters inside a budget, projectors, layer maps, export."""
