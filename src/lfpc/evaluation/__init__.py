"""How well a policy answers, whether it uses its crops, and how sure that is."""
