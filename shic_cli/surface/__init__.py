"""The template: its surface, its limbs, and the bodies and poses that it can take."""
