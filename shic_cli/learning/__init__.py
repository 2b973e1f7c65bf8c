"""How the canonical map is learned."""
